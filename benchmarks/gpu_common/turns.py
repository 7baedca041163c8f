"""Cases that take turns: A B B A, so that a card that slows down meanwhile counts against both."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from flux.hooks import Hooks

from . import clock
from .models import inputs_of, step_of
from .record import Record, one_line
from .scale import Setup, floor_of

OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Case:
    """One way to run a step. against: the case that it is held against, of the same model."""

    name: str
    batch: int
    hooks: Hooks | None = None
    against: str | None = None


def measure(
    name: str, model: nn.Module, case: Case, setup: Setup, *, repeats: int | None = None
) -> dict[str, Any]:
    """The row of one turn: milliseconds of each step and the peak, or the error that came instead.

    A case that fails, for lack of memory for one, does not end the part.
    """
    scale, row = setup.scale, {"model": name, "case": case.name, "batch": case.batch, "against": case.against}
    repeats = repeats or (scale.repeats if case.batch == 1 else scale.repeats_of_batches)
    try:
        step = step_of(name, model, inputs_of(setup, case.batch), case.hooks)
        clock.reset_peak(setup.device)
        times = clock.milliseconds(step, setup.device, scale.warmup, repeats)
        row |= {"ms": times, "peak_gb": clock.peak_gb(setup.device)}
        print(f"  {name:10} {case.name:28} {statistics.median(times):10.2f} ms", flush=True)
    except Exception as error:
        row |= {"error": OUT_OF_MEMORY if clock.is_out_of_memory(error) else one_line(error)}
    if "error" in row:
        clock.free(setup.device)
        print(f"  {name:10} {case.name:28} {row['error']}", flush=True)
    return row


def keep(record: Record, rows: Sequence[dict[str, Any]], setup: Setup) -> None:
    """Write the rows so far, and what they come to."""
    cases = summarise(rows, setup, record.other("calibration"))
    record.put(turns=list(rows), cases=cases, ratios=ratios(cases))


def require_one(rows: Sequence[dict[str, Any]]) -> None:
    """Raise RuntimeError where no case could be timed."""
    if rows and not any("ms" in row for row in rows):
        raise RuntimeError(f"no case could be timed; the first: {rows[0]['error']}")


def summarise(rows: Sequence[dict[str, Any]], setup: Setup, calibration: dict[str, Any]) -> list[dict]:
    """One entry per model and case, its turns joined: median, spread and floor; or the error."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["case"]), []).append(row)
    return [_entry(turns, setup, calibration) for turns in groups.values()]


def _entry(turns: list[dict], setup: Setup, calibration: dict[str, Any]) -> dict[str, Any]:
    entry = {key: turns[0][key] for key in ("model", "case", "batch", "against")}
    timed = [turn for turn in turns if "ms" in turn]
    if not timed:
        return entry | {"error": turns[0]["error"]}
    times = sorted(ms for turn in timed for ms in turn["ms"])
    deciles = statistics.quantiles(times, n=10, method="inclusive") if len(times) > 1 else times * 9
    return entry | {
        "median_ms": statistics.median(times),
        "least_ms": times[0],
        "p10_ms": deciles[0],
        "p90_ms": deciles[-1],
        "turns_ms": [statistics.median(turn["ms"]) for turn in timed],
        "peak_gb": timed[0]["peak_gb"],
        "floor_ms": floor_of(setup.scale, entry["batch"], calibration),
    }


def ratios(cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ours over diffusers for each case that both ran, and each case over the one it is held against: below 1
    is faster."""
    median = {(each["model"], each["case"]): each["median_ms"] for each in cases if "median_ms" in each}
    found = {}
    for each in cases:
        model, case, against = each["model"], each["case"], each["against"]
        if model == "diffusers" and {("ours", case), (model, case)} <= median.keys():
            found[f"ours / diffusers, {case}"] = median["ours", case] / median[model, case]
        if against is not None and {(model, case), (model, against)} <= median.keys():
            found[f"{case} / {against}, {model}"] = median[model, case] / median[model, against]
    return found


def table(figures: dict[str, Any]) -> list[str]:
    """The cases as Markdown, with their ratios below."""
    lines = ["| model | case | median ms | p10 - p90 | floor ms | peak GB |", "| --- " * 6 + "|"]
    for each in figures.get("cases", []):
        start = f"| {each['model']} | {each['case']} | "
        if "error" in each:
            lines.append(f"{start}{each['error']} | | | |")
            continue
        spread = f"{each['p10_ms']:.1f} - {each['p90_ms']:.1f}"
        rest = f"{number(each['floor_ms'])} | {number(each['peak_gb'])} |"
        lines.append(f"{start}{each['median_ms']:.1f} | {spread} | {rest}")
    found = figures.get("ratios", {})
    return lines + [""] * bool(found) + [f"- {name}: {ratio:.3f}" for name, ratio in found.items()]


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
