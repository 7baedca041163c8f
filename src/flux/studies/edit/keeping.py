"""Sources whose keys and values are kept in a run: which of them, how much that is, and where it goes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flux.hooks.kept import KeptSource
from flux.methods.stable_flow import EditRequest, edit_passes, kept_bytes
from flux.studies.edit.requests import requests
from flux.studies.edit.spec import EditSpec

MOST_HELD = 8e9
"""Bytes of earlier sources that a run goes on holding."""


class KeptSources:
    """The sources of several requests, each kept for all of those that share it.

    It is sampled with what any of them looks at, so that a request's pictures do not depend on the others.
    """

    def __init__(self, every: Iterable[EditRequest] = ()):
        self._kept: dict[tuple, KeptSource] = {}
        self._every = list(every)

    def of(self, request: EditRequest) -> KeptSource | None:
        """What the source of a request is kept in; None where it is not kept."""
        if request.keep == "off":
            return None
        made_from = _source_of(request)
        kept = self._kept.pop(made_from, None)
        if kept is None:
            kept = KeptSource(request.keep)
            for each in self._every:
                if _source_of(each) == made_from:
                    edit_passes(each, kept)  # by which it learns what they look at
        while self._kept and sum(each.bytes for each in self._kept.values()) + kept.bytes > MOST_HELD:
            self._kept.pop(next(iter(self._kept)))
        self._kept[made_from] = kept
        return kept


def _source_of(request: EditRequest) -> tuple:
    second = request.seconds.get(request.source)
    return request.source, second, request.seed, request.sampling, request.negative


def kept_note(*specs: EditSpec) -> tuple[str, ...]:
    """What `--dry-run` says of sources that are kept, by one spec or for all cells of a scan."""
    most, place = _most_bytes(*specs), specs[0].kept_source
    if not most:
        return ()
    where = "" if place == "auto" else f" on the {place}"
    return (f"  the source's keys and values are kept{where}: {most / 1e6:.0f} MB with 2 bytes a number",)


def held_bytes(*specs: EditSpec) -> float:
    """How much of a source that is kept stays on the device for sure, with 2 bytes a number."""
    return _most_bytes(*specs) if specs[0].kept_source == "device" else 0.0


def _most_bytes(*specs: EditSpec) -> float:
    """Of the sources that are kept, the largest, with 2 bytes a number; all that any edit of it looks at."""
    looking: dict[tuple, EditRequest] = {}
    for each in (each for spec in specs for each in requests(spec) if each.keep != "off"):
        before = looking.get(_source_of(each))
        edits = each.edits if before is None else (*before.edits, *each.edits)
        looking[_source_of(each)] = replace(each, edits=edits)
    params = specs[0].model.record.params
    return max((kept_bytes(each, params, 2) for each in looking.values()), default=0.0)


def kept_record(kept: KeptSource) -> dict[str, Any]:
    """For `run.json`: where a source is kept, in how many bytes."""
    return {"kept_source": {"place": kept.place, "bytes": kept.bytes}}
