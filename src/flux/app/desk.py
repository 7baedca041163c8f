"""Where what tabs ask for becomes a checked spec, and a spec a job: the models, the folders, the queue.

A spec that reaches the page is somebody else's. Its files lie among uploads and runs, or it is refused before
one is opened (`flux.confined`); it runs the page's own model, names no code, and asks for no more than a job
may. Where its run goes is the page's to say.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from flux.app.jobs import JobQueue, PageJob
from flux.app.options import JobCaps, PageOptions
from flux.confined import confined
from flux.flags import choices, shown
from flux.studies import edit, sweep, text, timesteps
from flux.studies.folder import RunFolder
from flux.studies.picture_run import Host
from flux.studies.reading import read_spec
from flux.studies.run import load, setting
from flux.studies.schema import DEMOS
from flux.studies.spec import Spec
from flux.studies.study import Study
from flux.studies.sweep.place import find_sweep, setting_of
from flux.weights.load import Models

STUDIES: dict[str, Study] = {
    "test": text.STUDY,
    "layer": timesteps.STUDY,
    "skip": sweep.STUDY,
    "edit": edit.STUDY,
}
"""What a page makes, by what its specs are called."""

RUNS, UPLOADS = "page", "uploads"
"""Below the output folder: where runs of the page go, and in it the pictures that came from browsers."""

PLACES = ("output", "overwrite")
"""Keys that say where a run goes, which is the page's to say."""


LONGEST_TEXT = 10_000
"""Letters of a prompt; no encoder reads as many, and many more take minutes that nobody can stop."""


@dataclass(frozen=True)
class AskedRun:
    """A spec that was read and checked. kind: a name of `STUDIES`."""

    kind: str
    spec: Spec

    @property
    def recipe(self) -> dict[str, Any]:
        """As a file that a demo makes the same pictures of."""
        return self.spec.recipe()

    @property
    def demo(self) -> str:
        """The demo that makes it."""
        return DEMOS[self.kind]


class Desk:
    """The one place of a page that all of its users share."""

    def __init__(self, options: PageOptions):
        self.options = options
        self.root = Path(options.output).absolute()
        self.runs, self.uploads = self.root / RUNS, self.root / RUNS / UPLOADS
        self.uploads.mkdir(parents=True, exist_ok=True)
        self._any = read_spec(
            resolve_name(STUDIES["test"].spec),
            {"prompts": ["a"], "model": dict(options.model)},
            "the options",
        )
        self.model = self._any.model
        self.record = self.model.record
        self.models: Models | None = None
        self.queue = JobQueue(self._load)

    def close(self) -> None:
        self.queue.close()

    def _load(self, job: PageJob) -> Path:
        # With no prompts known, the text encoders stay.
        self.models = load(self._any, None)
        return self.root

    # Reading

    def read(self, kind: str, asked: Mapping[str, Any], source: str = "the page") -> AskedRun:
        """Check what is asked for, with all files that it names. Raises ValueError or OSError, one line."""
        study, data = STUDIES[kind], self._with_own(kind, asked)
        _require_short(data)
        spec_class = resolve_name(study.spec)
        with confined([self.root]):
            spec = read_spec(spec_class, data, source)
            _require_few(kind, spec, self.options.caps)
            if study.check is not None:
                resolve_name(study.check)(spec)
        own = json.dumps(spec.recipe(), sort_keys=True)
        place = self.runs / f"{kind}-{hashlib.sha256(own.encode()).hexdigest()[:12]}"
        return AskedRun(kind, spec.model_copy(update={"output": place}))

    def _with_own(self, kind: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """With the page's model in the place of the spec's; ValueError for what no page does."""
        data = {key: value for key, value in asked.items() if key not in PLACES}
        data = json.loads(json.dumps(data))
        model = data.get("model")
        name = model.get("name", self.model.name) if isinstance(model, dict) else model
        if name is not None and name != self.model.name:
            raise ValueError(
                f"model = {shown(name)}: this page has {self.model.name} loaded: start another with --name"
            )
        for key in ("method", "probe"):
            named = data.get(key)
            named = named.get("name") if isinstance(named, dict) else named
            if isinstance(named, str) and ":" in named:
                raise ValueError(f"{key} = {shown(named)}: a page runs no code of its users")
        for key in ("checks", "until"):
            dino = (data.get(key) or {}).get("dino") if isinstance(data.get(key), dict) else None
            if dino not in (None, "auto", "off"):
                raise ValueError(f"{key}.dino = {shown(dino)}: {choices(('auto', 'off'))}")
        if kind == "skip":
            for key in ("shard", "merge"):
                if data.pop(key, None):
                    raise ValueError(f"{key}: a page makes sweeps whole")
            # One at a time, so that it can be watched and stopped. The bytes are those of any engine.
            data["engine"] = {"name": "local", "workers": 1}
        return data | {"model": self.model.as_json(), "output": str(self.runs / kind)}

    # Making

    def put(self, asked: AskedRun) -> PageJob:
        """Have a run made when it is its turn."""
        return self.queue.put(partial(self._make, asked))

    def _make(self, asked: AskedRun, job: PageJob) -> Path:
        if self.models is None:
            raise ValueError(f"{self.model.name} is not loaded: {self.queue.loading.state.message}")
        host = Host(load=lambda spec, prompts, rows: self.models, watch=job.watch)
        resolve_name(STUDIES[asked.kind].make)(asked.spec, host)
        return self.folder_of(asked)

    def folder_of(self, asked: AskedRun) -> Path:
        """Where the run is, once it is made."""
        spec = asked.spec
        if asked.kind == "skip":
            return find_sweep(spec, spec.output, setting_of(spec)).path
        return RunFolder.find(spec.output, spec.recipe(), setting(spec)).path


def kind_of(data: Mapping[str, Any]) -> str:
    """What a dropped spec is of, by its keys. Raises ValueError for one that no tab makes."""
    keys = {key for key in data if key != "$schema"}
    fitting = [
        kind for kind, study in STUDIES.items() if keys <= resolve_name(study.spec).model_fields.keys()
    ]
    if "edit" in fitting and not keys & {"source", "sources", "edits"}:
        fitting.remove("edit")
    if not fitting or not keys:
        raise ValueError(
            f"no spec of {', '.join(DEMOS[kind] for kind in STUDIES)}: its keys are {shown(sorted(keys))}"
        )
    return fitting[0]


def _require_short(value: Any, place: str = "") -> None:
    """Raise ValueError for a text in a spec that is longer than any model reads."""
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise ValueError(
            f"{place}: has {len(value)} letters, and {LONGEST_TEXT} are read at most: shorten it"
        )
    if isinstance(value, dict):
        for key, each in value.items():
            _require_short(each, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            _require_short(each, f"{place}[{number}]")


def _require_few(kind: str, spec: Spec, caps: JobCaps) -> None:
    """Raise ValueError for a spec that asks for more than a job may."""
    sizes = {"steps": (spec.steps, caps.steps), "pictures": (_pictures(kind, spec), caps.pictures)}
    pixels = spec.width * spec.height
    if kind == "edit" and spec.pixels is not None:
        pixels = max(pixels, spec.pixels)
    sizes = {"pixels": (pixels, caps.pixels)} | sizes
    for what, (asked, most) in sizes.items():
        if asked > most:
            raise ValueError(f"{asked} {what} are more than the {most} of one job here: ask for fewer")


def _pictures(kind: str, spec: Spec) -> int:
    """How many pictures a spec has made, comparisons left out."""
    count: dict[str, Callable[[], int]] = {
        "test": lambda: sum(1 for _ in spec.pictures()),
        "layer": lambda: 1,
        "skip": lambda: len(spec.prompts) * len(spec.groups()) * len(spec.windows or [0]),
        "edit": lambda: sum(_edits(spec)) * _cells(spec),
    }
    return count[kind]()


def _edits(spec: Spec) -> Iterator[int]:
    return (len(edit.seeds or [0]) for source in spec.pictures for edit in source.edit)


def _cells(spec: Spec) -> int:
    cells = 1
    for values in spec.scan.axes.values() if spec.scan is not None else ():
        cells *= len(values)
    return cells
