"""What a run of demo 4 has made, read from its folder: each edit's pictures, scores and notices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux.files import read_json_object
from flux.studies.folder import RECORD


@dataclass(frozen=True)
class MadeEdit:
    """One edit. files: by what they show, `source` and `edit` among them. notices: what the run says."""

    title: str
    prompt: str
    files: Mapping[str, str]
    facts: Mapping[str, str]
    notices: Sequence[str]

    @property
    def downloads(self) -> list[str]:
        return [self.files[kind] for kind in ("full", "edit") if kind in self.files][:1]


def made_edits(folder: Path) -> list[MadeEdit]:
    """The edits in the folder of a run of demo 4; none where there is no such run."""
    record = read_json_object(folder / RECORD) or {}
    edits = record.get("edits")
    if not isinstance(edits, list):
        return []
    return [_made(each) for each in edits if isinstance(each, dict) and isinstance(each.get("files"), dict)]


def _made(each: Mapping[str, Any]) -> MadeEdit:
    files = dict(each["files"])
    if "source" not in files:
        files = {"source": each["source"], **files}
    return MadeEdit(
        title=Path(files["edit"]).stem,
        prompt=each["prompt"],
        files=files,
        facts=_facts(each),
        notices=list(each.get("notices") or ()),
    )


def _facts(each: Mapping[str, Any]) -> dict[str, str]:
    """Scores, in words, of those that were measured."""
    words = {
        "seed": ("Seed", "{}"),
        "changed": ("Changed pixels", "{:.1%}"),
        "psnr": ("PSNR to the source", "{:.1f} dB"),
        "similarity": ("DINO similarity to the source", "{:.3f}"),
        "loss": ("Lost of the source", "{:.0%}"),
        "mask": ("Mask", "{:.1%} of the picture"),
        "evaluations": ("Evaluations", "{} of one row"),
    }
    facts = {"Prompt": each["prompt"]}
    facts |= {
        name: form.format(each[key]) for key, (name, form) in words.items() if each.get(key) is not None
    }
    return facts
