"""What demo 3 writes of sets that edits were tried with: `editing_layers.json`, a table, a plot, pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flux.studies.folder import RunFolder
from flux.studies.pages.plots import Dot, trade_off_plot
from flux.studies.pages.render import PagePicture
from flux.studies.run import kept_as
from flux.studies.similarity.probed import Probed
from flux.studies.similarity.recommending import Layers, TriedSet, front, paired, recommend, sets_along
from flux.studies.similarity.trying import Trial
from flux.studies.similarity.words import shortened
from flux.studies.sweep.folder import Sweep
from flux.studies.tables import csv_text

FILE, TABLE, PLOT = "editing_layers.json", "editing_sets.csv", "editing_sets.png"


@dataclass(frozen=True)
class EditingPage:
    """What the page shows. said: sentences. titles, rows, marked: a table. strips: rows of pictures."""

    said: list[str]
    plot: PagePicture
    titles: list[str]
    rows: list[list[str]]
    marked: list[int]
    strips: list[list[PagePicture]]
    files: dict[str, str]


def order_of(found: Probed) -> list[int]:
    """Single layers as wholes, from the one that carries most."""
    return [each.part.layers[0] for each in found.ranked if each.whole]


def report_editing(sweep: Sweep, found: Probed, trial: Trial, model: Mapping[str, Any]) -> EditingPage:
    """Try sets along the order, choose, measure again, and write all of it. model: what measured carry.

    Raises ValueError, one line, for a sweep that gives no order.
    """
    order = order_of(found)
    if len(order) < 2:
        raise ValueError(f"{sweep.path} gives no order of layers: it needs two or more, each by itself")
    run = trial.run
    none, *tried = trial.of("choose", sets_along(order, trial.asked.sets))
    chosen, notes = recommend(tried, none, trial.bench.free)
    plain, *again = trial.of("check", list(dict.fromkeys(chosen.values())))
    checked = {each.layers: each for each in again}
    best = front(tried)
    run.write_json(FILE, _file(sweep, order, none, tried, chosen, notes, plain, checked, trial, model))
    rows = [[_label(each.layers), len(each.layers), *each.means] for each in (none, *tried)]
    run.write_text(TABLE, csv_text(["layers", "size", "made", "kept"], rows))
    dots = [
        Dot(each.means[1], each.means[0], _taken(each.layers, chosen), _size(each)) for each in (none, *tried)
    ]
    run.write_bytes(PLOT, trade_off_plot(dots, x="kept, dB", y="made"))
    shown = list(dict.fromkeys(chosen.values()))
    return EditingPage(
        said=_said(run, none, chosen, notes, plain, checked, trial),
        plot=PagePicture(PLOT, "Each set that was tried: how much of edits was made, how much was kept"),
        titles=["layers", "made", "kept, dB", "taken for"],
        rows=[
            [_label(each.layers), f"{made:.3f}", f"{kept:.1f}", _taken(each.layers, chosen)]
            for each in (none, *best)
            for made, kept in [each.means]
        ],
        marked=[i for i, each in enumerate((none, *best)) if each.layers in chosen.values()],
        strips=[
            [PagePicture(file, _caption(pair.prompts, layers, chosen)) for file, layers in files]
            for pair, files in trial.shown(shown)
        ],
        files={FILE: f"{FILE}, for the layers of demo 4", TABLE: f"{TABLE}, a row for each set"},
    )


def _label(layers: Layers) -> str:
    return " + ".join(map(str, layers)) or "none"


def _taken(layers: Layers, chosen: Mapping[str, Layers]) -> str:
    """What a set is taken for; empty for one that is not."""
    return ", ".join(name for name, each in chosen.items() if each == layers)


def _size(each: TriedSet) -> str:
    count = len(each.layers)
    return f"{count} layer{'s' * (count != 1)}" if count else "no injection"


def _caption(prompts: tuple[str, str], layers: Layers | None, chosen: Mapping[str, Layers]) -> str:
    if layers is None:
        return f"source: {shortened(prompts[0], 60)}"
    if not layers:
        return f"without injection: {shortened(prompts[1], 60)}"
    return f"{_taken(layers, chosen)}: layers {_label(layers)}"


def _said(
    run: RunFolder,
    none: TriedSet,
    chosen: Mapping[str, Layers],
    notes: Sequence[str],
    plain: TriedSet,
    checked: Mapping[Layers, TriedSet],
    trial: Trial,
) -> list[str]:
    lines = [
        f"Sets for editing were chosen on {len(none.made)} pairs and measured again on {len(plain.made)} "
        f"others. Made: {trial.bench.words['made']}. Kept: {trial.bench.words['kept']}."
    ]
    for name, layers in chosen.items():
        made = paired(checked[layers].made, plain.made)
        kept = paired(checked[layers].kept, plain.kept)
        lines.append(
            f"{name}: layers {_label(layers)}; on the other pairs {kept[0]:+.1f} dB kept "
            f"[{kept[1]:.1f}, {kept[2]:.1f}] and {made[0]:+.2f} made [{made[1]:.2f}, {made[2]:.2f}], against "
            f"no injection ({plain.means[1]:.1f} dB, {plain.means[0]:.2f})."
        )
    lines += [f"{note}." for note in notes]
    return [*lines, f'For demo 4: "layers": {{"file": "{run.path / FILE}", "take": "balanced"}}']


def _file(
    sweep: Sweep,
    order: Sequence[int],
    none: TriedSet,
    tried: Sequence[TriedSet],
    chosen: Mapping[str, Layers],
    notes: Sequence[str],
    plain: TriedSet,
    checked: Mapping[Layers, TriedSet],
    trial: Trial,
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `editing_layers.json`, see `flux.studies.editing_layers`."""
    weights = sweep.setting.get("weights")
    return {
        "model": sweep.recipe["model"]["name"],
        "layers": list(chosen["balanced"]),
        "sets": {name: list(layers) for name, layers in chosen.items()},
        "notes": list(notes),
        "order": list(order),
        "weights": weights if isinstance(weights, dict) else None,
        **kept_as(sweep.setting),
        "evidence": {
            **trial.bench.words,
            "may make less by": dict(trial.bench.free),
            "chosen on": len(none.made),
            "none": _figures(none),
            "front": [_figures(each) for each in front(tried)],
            "tried": [_figures(each) for each in tried],
            "measured again on": len(plain.made),
            "none again": _figures(plain),
            "again, against none": {
                name: {
                    **_figures(checked[layers]),
                    "made more": paired(checked[layers].made, plain.made),
                    "kept more": paired(checked[layers].kept, plain.kept),
                }
                for name, layers in chosen.items()
            },
            "order by": model,
            "sweep": sweep.path.name,
            **{key: sweep.recipe.get(key) for key in ("steps", "guidance", "width", "height")},
            **{key: sweep.setting.get(key) for key in ("device", "dtype")},
        },
    }


def _figures(each: TriedSet) -> dict[str, Any]:
    made, kept = each.means
    return {"layers": list(each.layers), "made": round(made, 4), "kept": round(kept, 3)}
