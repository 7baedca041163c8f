"""`--dry-run --card 24`: which ways to offload fit into a GPU's memory, by size. Nothing is loaded."""

import torch

from flux.device import pick_dtype
from flux.placement.peaks import PeakBytes, predict_peaks
from flux.placement.picking import SLACK, best_fit, card_bytes, has_number
from flux.studies.run import demand_of
from flux.studies.spec import Spec

PHASES = ("encoding", "sampling", "decoding")


def card_lines(spec: Spec, rows: int, gib: float, held: float = 0.0) -> list[str]:
    """A line for each way: its predicted peak, in which phase that is, and whether a card has as much.

    Of streaming the way in which the most blocks stay that fit, and that in which none does.
    rows: that are sampled side by side, at most. held: bytes that stay on it beside.
    """
    dtype, precision = pick_dtype(spec.model.computes_in, torch.device("cuda")), spec.model.kept_in()
    demand = demand_of(spec, rows, held)
    peaks = predict_peaks(spec.model.record, dtype, demand, precision)
    side_by_side = f"{demand.rows} row{'s' * (demand.rows != 1)} of {spec.width} x {spec.height}"
    weights = str(dtype).removeprefix("torch.") if precision is None else str(precision)
    title = f"of a card of {gib:g} GB, in {weights}, predicted for {side_by_side}:"
    best = best_fit(peaks, card_bytes(gib))[0]
    return [
        title,
        *(_line(each, card_bytes(gib)) for each in peaks if each.way == best or not has_number(each.way)),
    ]


def _line(peak: PeakBytes, room: float) -> str:
    where = max(PHASES, key=lambda phase: getattr(peak, phase))
    fits = "fits" if peak.most + SLACK <= room else "does not fit"
    return f"  offload {peak.way:<11}{peak.most / 1e9:5.1f} GB, in {where}: {fits}"
