"""What went wrong with an edit by a method, in words, and which of its settings to try."""

from collections.abc import Iterator

from flux.methods import Setting
from flux.methods.lookup import find_method
from flux.pictures.metrics import Score, did_nothing, lost_source
from flux.studies.edit.cautions import draws
from flux.studies.edit.jobs import EditJob
from flux.studies.edit.spec import EditSpec
from flux.studies.edit.verdicts import Seen, either, share

FREES = {
    "guidance": 1,
    "scale": 1,
    "strength": 1,
    "depth": 1,
    "limit": 1,
    "start": -1,
    "eta": -1,
    "stop": -1,
    "inject": -1,
}
"""Settings of methods that give an edit more room where they are larger, 1, or smaller, -1."""


def what_went_wrong(spec: EditSpec, job: EditJob, figures: Score, seen: Seen = None) -> Iterator[str]:
    """In words, with what to try: if the edit did nothing, lost the source, or lacks what was asked for.

    seen: what a judge says of it. Nothing is said of an edit that worked.
    """
    limit = spec.checks.did_nothing
    if did_nothing(figures, 0.0, limit):
        said = f"did nothing: {figures.changed:.2%} of pixels changed, up to {limit:.2%} counts as nothing. "
        yield said + f"Try {either(_to_free(spec, job))}."
        return
    lost, unmet = seen or (_lost_by_pictures(spec, job, figures), [])
    if lost and unmet:
        again = either(_to_redo(spec, job))
        yield f"lost the source: {'; '.join(lost)}; and {'; '.join(unmet)}. Try {again}."
    elif lost:
        yield f"lost the source: {'; '.join(lost)}. Try {either(_to_bind(spec, job))}."
    elif unmet:
        yield f"did not make all that was asked for: {'; '.join(unmet)}. Try {either(_to_free(spec, job))}."


def _lost_by_pictures(spec: EditSpec, job: EditJob, figures: Score) -> list[str]:
    limit = spec.checks.lost_source
    if not lost_source(figures, limit):
        return []
    return [f"{share(figures.loss)} of it, above {limit:.0%} counts as lost"]


def _to_free(spec: EditSpec, job: EditJob) -> Iterator[str]:
    """What gives an edit more room."""
    yield from _settings(spec, frees=True)
    way = job.way
    if way.layers:
        yield f"fewer layers than {len(way.layers)}"
    if job.mask is not None:
        threshold = job.mask.threshold
        alone = "a larger mask" if find_method(spec.method.name).needs_mask else "a larger mask, or none"
        yield f"a mask threshold below {threshold:g}" if threshold else alone
    for operator in spec.operators or ():
        if operator.name in ("gate", "velo-edit") and operator.settings["limit"] < 1:
            yield f"a {operator.name} limit above {operator.settings['limit']:g}"
    yield from _to_redo(spec, job)


def _to_redo(spec: EditSpec, job: EditJob) -> Iterator[str]:
    """What makes it another edit."""
    yield "a source prompt that names what is to change"
    if spec.method.row is None or draws(spec, job.source.image):
        yield "another seed"


def _to_bind(spec: EditSpec, job: EditJob) -> Iterator[str]:
    """What keeps an edit closer to its source."""
    row = find_method(spec.method.name)
    if job.mask is None and (row.pairs or row.needs_mask):
        yield "a mask of where it may change"
    yield from _settings(spec, frees=False)
    if row.pairs and not row.needs_mask and not job.way.layers:  # with a mask alone: it looks by itself
        known = ", such as --layers default" if "default" in spec.model.record.layer_sets else ""
        yield f"layers in which it looks at its source{known}"
    if spec.paste is not None and spec.paste.when is False:
        yield "paste true"
    yield "a prompt closer to the source's"


def _settings(spec: EditSpec, *, frees: bool) -> Iterator[str]:
    """The method's settings that free an edit, or bind it, and which way to move them."""
    row = find_method(spec.method.name)
    for name, direction in FREES.items():
        if name not in spec.settings or (name == "guidance" and spec.model.record.guidance is None):
            continue
        value, up = spec.settings[name], (direction > 0) == frees
        known = row.settings[name]
        if not isinstance(known, Setting):  # of one's own, whatever it is called
            continue
        if value < known.highest if up else value > known.lowest:
            article = "an" if name[0] in "aeiou" else "a"
            yield f"{article} {name} {'above' if up else 'below'} {value:g}"
