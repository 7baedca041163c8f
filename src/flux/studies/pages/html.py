"""The parts of a page that opens from disk: no scripts, no network, pictures by relative path."""

import difflib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

STYLE = """
:root { color-scheme: light dark; --ink: #18181b; --quiet: #71717a; --paper: #fafafa; --card: #ffffff;
  --line: #e4e4e7; --accent: #4f46e5; --mark: #fde68a; --warn: #b45309; --warn-paper: #fffbeb; }
@media (prefers-color-scheme: dark) { :root { --ink: #f4f4f5; --quiet: #a1a1aa; --paper: #18181b;
  --card: #27272a; --line: #3f3f46; --accent: #a5b4fc; --mark: #854d0e; --warn: #fcd34d;
  --warn-paper: #3b2f14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; font-weight: 600; }
p { margin: 0 0 .75rem; }
.kicker { color: var(--accent); font-size: .8rem; letter-spacing: .08em; text-transform: uppercase;
  font-weight: 600; }
section dl:last-child { margin-bottom: 0; }
.quiet { color: var(--quiet); font-size: .9rem; }
dl { display: flex; flex-wrap: wrap; gap: .35rem 1.75rem; margin: 1rem 0 2rem; font-size: .9rem; }
dl div { display: flex; gap: .45rem; }
dt { color: var(--quiet); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.25rem;
  margin-bottom: 1.25rem; }
.pictures figure.wide { grid-column: span 2; }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.strip { display: flex; gap: .75rem; overflow-x: auto; padding-bottom: .5rem; }
.strip figure { flex: 0 0 10rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: 8px; background: var(--line); }
figure img.small { image-rendering: pixelated; }
figcaption { color: var(--quiet); font-size: .85rem; margin-top: .35rem; }
mark { background: var(--mark); color: inherit; border-radius: 4px; padding: 0 .2em; }
.notice { border-left: 4px solid var(--warn); background: var(--warn-paper); border-radius: 6px;
  padding: .6rem .9rem; margin: 0 0 1rem; }
details { margin-top: 1.5rem; }
summary { cursor: pointer; color: var(--quiet); }
pre { overflow-x: auto; font-size: .85rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 1rem; }
a { color: var(--accent); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tr.marked td { font-weight: 700; }
td img, th img { width: 4.5rem; height: auto; display: block; border-radius: 4px; }
"""


def document(title: str, kicker: str, body: Iterable[str]) -> str:
    """A whole page. title and kicker are plain text, body is HTML."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f'<p class="kicker">{escape(kicker)}</p>',
            f"<h1>{escape(title)}</h1>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def figure(file: str, caption: str, *, small: bool = False, wide: bool = False) -> str:
    """A picture that links to itself. small: show its pixels as squares. wide: take two places of a grid."""
    path = escape(quote(file))
    squares = ' class="small"' if small and not wide else ""
    places = ' class="wide"' if wide else ""
    image = f'<a href="{path}"><img src="{path}" alt="{escape(caption)}" loading="lazy"{squares}></a>'
    return f"<figure{places}>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def facts(values: Mapping[str, Any]) -> str:
    """Short facts side by side."""
    pairs = (
        f"<div><dt>{escape(key)}</dt><dd>{escape(str(value))}</dd></div>" for key, value in values.items()
    )
    return f"<dl>{''.join(pairs)}</dl>"


def notice(text: str) -> str:
    return f'<p class="notice">{escape(text)}</p>'


def section(*parts: str) -> str:
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def pictures(figures: Iterable[str], kind: str = "pictures") -> str:
    """Figures in a grid, or with kind `strip` in one row that scrolls."""
    return f'<div class="{kind}">\n' + "\n".join(figures) + "\n</div>"


MARKED = ' class="marked"'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], marked: Container[int] = ()) -> str:
    """A table; its cells are HTML. marked: the numbers, from 0, of rows that stand out."""
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    body = [
        f"<tr{MARKED if number in marked else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for number, row in enumerate(rows)
    ]
    parts = ['<div class="table"><table>', f"<thead><tr>{head}</tr></thead>", "<tbody>", *body, "</tbody>"]
    return "\n".join([*parts, "</table></div>"])


def json_details(summary: str, value: Any) -> str:
    """JSON that is folded away until asked for."""
    text = escape(json.dumps(value, indent=2, ensure_ascii=False), quote=False)
    return f"<details><summary>{escape(summary)}</summary>\n<pre>{text}</pre></details>"


def changed_words(old: str, new: str) -> str:
    """The new text as HTML, with the words marked that the old one does not have there."""
    before, after = old.split(), new.split()
    parts = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        words = escape(" ".join(after[start:stop]))
        if words:
            parts.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return " ".join(parts)
