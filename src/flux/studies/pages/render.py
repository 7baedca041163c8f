"""Pages of HTML that open from disk, without network or scripts, from the templates beside this file.

Numbers and sentences are made in Python, HTML stands in the templates. Each page has a template of its own,
which extends `base.html` and says which values it takes.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

Facts = Mapping[str, Any]
"""By name, in words or numbers."""

TEMPLATES = Path(__file__).parent / "templates"

SMALL = 256
"""Pictures narrower than this are shown with square pixels."""


@dataclass(frozen=True)
class PagePicture:
    """A picture's file, relative to the page, and what is said below it.

    wide: twice as wide as others. narrow: another file that a phone shows in its place.
    """

    file: str
    caption: str
    wide: bool = False
    narrow: str | None = None


def render(template: str, *, about: Facts, recipe: Facts, **values: Any) -> str:
    """A page as text. template: a file of `templates/`. values: what it takes; texts are plain, not HTML.

    about: what stands at the top. recipe: the spec that makes the run again. Raises `jinja2.UndefinedError`
    where a value that the template takes is missing.
    """
    return _environment().get_template(template).render(values, about=about, recipe=recipe)


# Made when first used: most of what imports this never renders a page.
@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["SMALL"] = SMALL
    environment.filters["zip"] = zip
    environment.filters["changed_words"] = changed_words
    # Jinja's own `tojson` is for scripts: in a text its \u003c for < would be read as it stands.
    environment.filters["json"] = partial(json.dumps, indent=2, ensure_ascii=False)
    return environment


def changed_words(old: str, new: str) -> "Markup":
    """The new text as HTML, with the words marked that the old one does not have there."""
    from markupsafe import Markup, escape

    before, after = old.split(), new.split()
    parts = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if start < stop:
            words = escape(" ".join(after[start:stop]))
            parts.append(words if kind == "equal" else Markup("<mark>{}</mark>").format(words))
    return Markup(" ").join(parts)
