"""A checkout's structure in figures: lines, circles, imports upward, names, hops and forms of an edit.

    python benchmarks/structure.py                 this checkout
    python benchmarks/structure.py OTHER           another one, in the plan's rooms or in the layout before it
    python benchmarks/structure.py --details       also which imports, circles, names and files these are
    python benchmarks/structure.py --no-runs       what the sources say alone, in a second
    python benchmarks/structure.py --json

Sources are read as syntax trees; nothing is imported. Imports inside functions count, those under
`if TYPE_CHECKING` do not. A circle that is closed by imports inside functions alone is counted as a lazy one.

Hops and forms are measured, in runs of demos 4 and 2 with one step of flux-tiny. A hop is a change of source
file on the stack from the demo to `flux/model.py` when the model is called for the first time. The forms of
an edit are the project's classes of which an object held the edit's prompt directly in a field, from the
demo's start to its end; the JSON before them and the hooks plan, which holds no prompt, are not among them.

`tests/test_structure.py` holds the order below, so that no import goes upward.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

# The plan

STUDIES = ("text", "timesteps", "sweep", "similarity", "edit")

ORDER: tuple[tuple[str, ...], ...] = (
    ("", "entry", "device", "extras", "files", "limits", "text_files", "confined")
    + ("outcome", "flags", "prompts", "models", "integrators", "strength")
    + ("tiny.scenes", "tiny.captions", "tiny.prompts", "pictures.rgb", "pictures.opening")
    + ("pictures.looked_at",),
    ("math",),
    ("formats",),
    ("precision",),
    ("modules",),
    ("hooks",),
    ("model",),
    ("speed",),
    ("sampling", "finite", "packing", "references"),
    ("placement",),
    ("lora",),
    ("weights",),
    ("conditions", "generate"),
    ("methods", "probes"),
    ("pictures", "modules.image_embedders"),
    ("photos",),
    ("studies",),
    (*(f"studies.{name}" for name in STUDIES), "studies.__main__"),
    ("app",),
    ("edit", "util", "cli", "cli_*", "content_filters", "trt", "__main__", "tiny"),
)
"""Rooms of `flux`, from the bottom up. A room holds what stands below its name and has no place of its own.

Modules import their own row and those before it. In a row they may import each other, but not in a circle: a
study may build on another one. "" is `flux/__init__.py`.
"""

ONLY_FOR = {"util": ("cli", "cli_*", "__main__", "tiny"), "tiny.training": ("tiny.training",)}
"""Rooms that no others import. tiny imports like a user of ours."""

CORE = ("math", "model", "models", "layers", "configs", "modules", "sampling", "hooks", "generate")
"""What is no shell; `layers` and `configs` are what `models` was before."""

BEFORE = {
    "edit": "methods",
    **dict.fromkeys(("configs", "layers", "tiny.config"), "models"),
    **dict.fromkeys(("command_line", "settings"), "flags"),
    **dict.fromkeys(("checkpoints", "convert", "hub", "pretrained", "runs.weights_id"), "weights"),
    **dict.fromkeys(("image_io", "rgb", "watermark", "safety"), "pictures"),
    **dict.fromkeys(("features", "feature_cache", "metrics"), "pictures"),
    **dict.fromkeys(("ablate", "report", "rundir", "runs", "spec"), "studies"),
}
"""Where the plan puts the modules of the layout before it, so that the figures of both can be compared."""


def rank(module: str, moves: Mapping[str, str]) -> int | None:
    """The row of a module, 0 at the bottom, by the longest name that fits; None for one without a place.

    moves: modules that count as others, see `moves_of`.
    """
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        name = moves.get(name, name)
        for i, row in enumerate(ORDER):
            if any(fnmatchcase(name, each) for each in row):
                return i
    return None


def moves_of(package: Path) -> Mapping[str, str]:
    """BEFORE for a package of the layout before, which has no room for methods."""
    return {} if (package / "methods").is_dir() else BEFORE


# What the syntax trees say. `package` is the folder src/flux; modules are named below it: "studies.edit.run".


class Import(NamedTuple):
    """An import statement's module, and the one it stands in. lazy: inside a function."""

    importer: str
    imported: str
    line: int
    lazy: bool

    def __str__(self) -> str:
        return f"{self.importer or '__init__'}:{self.line} imports {self.imported or 'flux'}"


def modules(package: Path) -> dict[str, Path]:
    """The files of a package by the names of their modules; a folder's name is that of its `__init__.py`."""
    named = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


def imports(package: Path) -> list[Import]:
    """Every import of one of the package's modules by another one."""
    files = modules(package)
    return [
        Import(importer, imported, node.lineno, lazy)
        for importer, file in files.items()
        for node, lazy in _statements(ast.parse(file.read_text(encoding="utf-8"), str(file)), lazy=False)
        for imported in dict.fromkeys(_imported(node, importer, files, package.name))
        if imported != importer
    ]


def _statements(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _statements(ast.Module(child.orelse, []), lazy=lazy)
        else:
            yield from _statements(child, lazy=lazy or in_function)


def _imported(
    node: ast.Import | ast.ImportFrom, importer: str, files: Mapping[str, Path], package: str
) -> Iterator[str]:
    """The package's modules that a statement names."""
    if isinstance(node, ast.Import):
        names = [each.name for each in node.names]
    else:
        base = node.module or ""
        if node.level:
            inside = [package, *filter(None, importer.split("."))]
            is_folder = files[importer].name == "__init__.py"
            above = inside[: len(inside) - node.level + is_folder]
            base = ".".join([*above, base] if base else above)
        # `from flux.spec import errors` names a module, `from flux.spec import TestSpec` what one holds.
        names = [f"{base}.{each.name}" for each in node.names]
        names = [name if name.partition(".")[2] in files else base for name in names]
    for name in names:
        first, _, inner = name.partition(".")
        if first == package and inner in files:
            yield inner


def homeless(package: Path) -> list[str]:
    """Modules that have no place in the order."""
    moves = moves_of(package)
    return [module for module in modules(package) if rank(module, moves) is None]


def upward(package: Path) -> list[Import]:
    """Imports from a room by one below it."""
    moves = moves_of(package)
    ranked = [(each, rank(each.importer, moves), rank(each.imported, moves)) for each in imports(package)]
    return [each for each, low, high in ranked if low is not None and high is not None and low < high]


def reserved(package: Path) -> list[Import]:
    """Imports of a room that is only for others, see ONLY_FOR."""
    return [
        each
        for each in imports(package)
        for room, guests in ONLY_FOR.items()
        if _within(each.imported, room) and not any(_within(each.importer, name) for name in (room, *guests))
    ]


def _within(module: str, room: str) -> bool:
    return fnmatchcase(module, room) or fnmatchcase(module, f"{room}.*")


def circles(package: Path, *, lazy: bool = False) -> list[list[str]]:
    """Modules that import each other, at import time; with `lazy` those that imports in functions close."""
    files, every = modules(package), imports(package)
    found = _circles(files, [each for each in every if not each.lazy])
    return [each for each in _circles(files, every) if each not in found] if lazy else found


def _circles(files: Mapping[str, Path], every: list[Import]) -> list[list[str]]:
    edges: dict[str, set[str]] = {module: set() for module in files}
    for each in every:
        # A module is imported with the folders it lies in, but not again by what lies in them.
        parts = each.imported.split(".")
        folders = {".".join(parts[:length]) for length in range(1, len(parts))} & files.keys()
        around = {name for name in folders if _within(each.importer, name)}
        edges[each.importer] |= {each.imported} | (folders - around)
    reached = {module: _reached(module, edges) for module in edges}
    found = {tuple(sorted(m for m in reached[module] if module in reached[m])) for module in edges}
    return [list(each) for each in sorted(found) if each]


def _reached(module: str, edges: Mapping[str, set[str]]) -> set[str]:
    """The modules that one leads to; itself where a circle leads back."""
    reached, ahead = set(), list(edges[module])
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += edges[name]
    return reached


def twice(package: Path) -> dict[str, list[str]]:
    """Names of classes that more than one module gives, with these modules. tiny.training is apart."""
    homes: dict[str, list[str]] = {}
    for module, file in modules(package).items():
        if not _within(module, "tiny.training"):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(module)
    return {name: where for name, where in sorted(homes.items()) if len(where) > 1}


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def lines_by_room(package: Path) -> Counter[str]:
    """Lines of Python by the folder below src/flux; "" for the top level, "tiny/training" apart."""
    counts: Counter[str] = Counter()
    for file in modules(package).values():
        folder = file.relative_to(package).parent.as_posix()
        room = "tiny/training" if folder.startswith("tiny/training") else folder.partition("/")[0]
        counts["" if room == "." else room] += lines(file)
    return counts


def shell_lines(package: Path) -> int:
    """Lines of Python outside the core and outside tiny."""
    files = modules(package)
    return sum(lines(file) for name, file in files.items() if name.partition(".")[0] not in (*CORE, "tiny"))


# What runs say

PROBE = """
import json, os, runpy, sys, threading
from pathlib import Path

task, root, answer, *words = sys.argv[1:]
sys.argv = words

# An environment may lie in the checkout too.
OURS = tuple(os.path.join(root, folder, "") for folder in ("src", "demos"))

def inside(code):
    return code.co_filename.startswith(OURS)

def stack(frame):
    files = []
    while frame is not None:
        if inside(frame.f_code):
            files.append(os.path.relpath(frame.f_code.co_filename, root))
        frame = frame.f_back
    return files[::-1]

def first_call(*args, **kwargs):
    files = stack(sys._getframe(1))
    main = threading.main_thread()
    if threading.current_thread() is not main:
        files = stack(sys._current_frames()[main.ident]) + files
    Path(answer).write_text(json.dumps([*files, "src/flux/model.py"]))
    os._exit(0)

def holds(value, text):
    if isinstance(value, type) or not type(value).__module__.partition(".")[0] == "flux":
        return False
    fields = list(value) if isinstance(value, tuple) else list(getattr(value, "__dict__", {}).values())
    return any(isinstance(each, str) and each == text for each in fields)

held = {}

def watch(frame, event, value):
    if event not in ("call", "return") or not inside(frame.f_code):
        return
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    here = [frame.f_locals.get(name) for name in names] if event == "call" else [value]
    for each in here:
        for one in each if type(each) in (list, tuple) else (each,):
            if holds(one, text):
                held[type(one).__module__ + "." + type(one).__qualname__] = None

import flux.model
if task == "hops":
    flux.model.Flux.forward = first_call
else:
    text = json.loads(Path(words[1]).read_text())["edits"][0]
    threading.setprofile(watch)
    sys.setprofile(watch)
try:
    runpy.run_path(words[0], run_name="__main__")
finally:
    sys.setprofile(None)
    if held:
        Path(answer).write_text(json.dumps(list(held)))
"""

SMALL = {"model": "flux-tiny", "steps": 1}
EDIT = {
    **SMALL,
    "source": "a big red house and a small white cat on the grass under a blue day sky",
    "edits": ["a big red house and a small purple cat on the grass under a blue day sky"],
    "layers": [0],
}
SWEEP = {**SMALL, "prompts": [EDIT["source"]], "layers": [0], "batch": 1, "noise_floor": 0}


def probe(checkout: Path, task: str, demo: int, spec: Mapping[str, Any], *flags: str) -> list[str]:
    """Run a demo of a checkout and return what the probe found. RuntimeError where it found nothing."""
    (script,) = checkout.glob(f"demos/demo_{demo}_*.py")
    with TemporaryDirectory() as folder:
        file, answer = Path(folder, "spec.json"), Path(folder, "answer.json")
        file.write_text(json.dumps(spec), encoding="utf-8")
        words = [str(script), str(file), *flags, "--output", str(Path(folder, "run"))]
        done = subprocess.run(
            [sys.executable, "-c", PROBE, task, str(checkout), str(answer), *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if not answer.exists():
            raise RuntimeError(f"demo {demo} of {checkout} did not get there: {done.stdout}{done.stderr}")
        return json.loads(answer.read_text(encoding="utf-8"))


def hops(checkout: Path, demo: int, spec: Mapping[str, Any], *flags: str) -> list[str]:
    """The files that one goes through from a demo to the model, as often as one comes to them."""
    files = probe(checkout, "hops", demo, spec, *flags)
    return [file for i, file in enumerate(files) if i == 0 or files[i - 1] != file]


# All of it


def of_sources(checkout: Path) -> dict[str, Any]:
    """What the sources say, as plain JSON."""
    package = checkout / "src" / "flux"
    rooms = lines_by_room(package)
    top = [file.stem for file in package.glob("*.py") if file.stem != "__init__"]
    return {
        "lines": {room or "top level": rooms[room] for room in sorted(rooms)},
        "lines_in_all": sum(rooms.values()),
        "lines_of_templates": sum(lines(file) for file in package.rglob("*.html")),
        "lines_of_shell": shell_lines(package),
        "modules_at_top": sorted(top),
        "modules_without_a_place": homeless(package),
        "circles": circles(package),
        "lazy_circles": circles(package, lazy=True),
        "imports_upward": list(map(str, upward(package))),
        "imports_of_reserved_rooms": list(map(str, reserved(package))),
        "names_twice": twice(package),
    }


def of_runs(checkout: Path) -> dict[str, list[str]]:
    """What runs say, as plain JSON."""
    return {
        "hops_of_an_edit": hops(checkout, 4, EDIT),
        "hops_of_a_sweep": hops(checkout, 2, SWEEP, "--engine.workers", "1"),
        "forms_of_an_edit": probe(checkout, "forms", 4, EDIT),
    }


def table(found: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Rows of a label and a number."""
    yield from ((f"lines, {room}", count) for room, count in found["lines"].items())
    yield "lines in all", found["lines_in_all"]
    yield "lines of the shell", found["lines_of_shell"]
    yield "lines of HTML templates", found["lines_of_templates"]
    yield "modules at top level", len(found["modules_at_top"])
    yield "modules without a place", len(found["modules_without_a_place"])
    yield "circles", len(found["circles"])
    yield "circles, lazy", len(found["lazy_circles"])
    yield "imports upward", len(found["imports_upward"])
    yield "imports of util or tiny.training", len(found["imports_of_reserved_rooms"])
    yield "class names twice", len(found["names_twice"])
    if "hops_of_an_edit" in found:
        yield "hops of an edit", len(found["hops_of_an_edit"]) - 1
        yield "hops of a sweep", len(found["hops_of_a_sweep"]) - 1
        yield "forms of an edit", len(found["forms_of_an_edit"])


def details(found: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers stand for, a line each."""
    for name in ("modules_without_a_place", "imports_upward", "imports_of_reserved_rooms"):
        yield from (f"{name}: {each}" for each in found[name])
    for name in ("circles", "lazy_circles"):
        yield from (f"{name}: {' '.join(each)}" for each in found[name])
    yield from (f"names_twice: {name} in {', '.join(where)}" for name, where in found["names_twice"].items())
    for name in ("hops_of_an_edit", "hops_of_a_sweep", "forms_of_an_edit"):
        if name in found:
            yield f"{name}: {' > '.join(found[name])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("checkout", type=Path, nargs="?", default=here, help="this one if it is left out")
    parser.add_argument("--details", action="store_true", help="also say which ones they are")
    parser.add_argument("--no-runs", action="store_true", help="leave out hops and forms")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    options = parser.parse_args()

    checkout = options.checkout.resolve()
    found = of_sources(checkout) | ({} if options.no_runs else of_runs(checkout))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for label, number in table(found):
        print(f"{label:<36}{number:>7}")
    for line in details(found) if options.details else ():
        print(line)


if __name__ == "__main__":
    main()
