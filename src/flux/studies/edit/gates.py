"""How well sources come back, in words: said before they are edited, and shown beside them."""

from collections.abc import Iterator, Mapping
from typing import Any

from flux.methods.lookup import find_method
from flux.photos.replays import Replay, replay_of
from flux.studies.edit.figures import figures_of
from flux.studies.edit.jobs import jobs_of
from flux.studies.edit.spec import EditSpec
from flux.studies.folder import RunFolder

NAMES = {
    "autoencoder": "given back by the autoencoder alone",
    "free": "given back from noise",
    "unchanged": "given back from noise by the method, with nothing asked for",
}

Told = Mapping[str, Any]
"""A gate as a source's file holds it, see `flux.photos.gate.Gate`."""


def replay_of_spec(spec: EditSpec) -> Replay | None:
    """How the spec's method gives sources back; None where that is not asked, or it does not invert."""
    row = find_method(spec.method.name) if spec.checks.gate else None
    return None if row is None else replay_of(row, spec.settings)


def replay_evaluations(spec: EditSpec) -> int:
    """How many evaluations of one row that takes for each source."""
    replay = replay_of_spec(spec)
    return 0 if replay is None else replay.evaluations(spec.steps)


def facts_of(gate: Told | None, spec: EditSpec) -> dict[str, str]:
    """The figures of a source by what they are of, in words."""
    replay = replay_of_spec(spec)
    names = {"autoencoder": NAMES["autoencoder"]}
    if replay is not None and replay.way in NAMES:
        names["replay"] = NAMES[replay.way]
    found = {name: (gate or {}).get(key) for key, name in names.items()}
    facts = {name: _in_words(figures) for name, figures in found.items() if figures}
    if gate and replay is not None and replay.way == "left out":
        facts[NAMES["free"]] = replay.about
    return facts


def _in_words(figures: Mapping[str, float | None]) -> str:
    parts = [
        "equal" if figures["psnr"] is None else f"{figures['psnr']:.1f} dB",
        *([] if figures["ssim"] is None else [f"SSIM {figures['ssim']:.3f}"]),
        *([] if figures["dino"] is None else [f"DINO {figures['dino']:.3f}"]),
    ]
    return ", ".join(parts)


def gates_of(spec: EditSpec, run: RunFolder) -> dict[str, Told | None]:
    """Of each source of a run by its file, as the files hold them."""
    files = dict.fromkeys(job.file("source") for job in jobs_of(spec))
    return {file: figures_of(run, file).get("gate") for file in files}


def listed(gates: Mapping[str, Told | None]) -> list[dict[str, Any]]:
    """For `run.json`."""
    return [{"file": file, "gate": gate} for file, gate in gates.items()]


def lines_of(file: str, gate: Told | None, spec: EditSpec) -> Iterator[str]:
    """What is said of a source, by its file: its figures, and what to do where they are poor."""
    name = file.removesuffix(".png")
    for what, figures in facts_of(gate, spec).items():
        yield f"{name}: {what}: {figures}"
    for line in (gate or {}).get("advice", ()):
        yield f"{name}: {line}"
