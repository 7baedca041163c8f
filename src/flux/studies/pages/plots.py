"""Plots of a sweep as PNG: each layer's importance, and a map of prompts and layers.

Both can be read without colour: kinds of layers differ by shade and hatch, vital ones have a mark.
"""

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from flux.extras import need

INK, QUIET = "#18181b", "#71717a"
STYLES: Mapping[str, Mapping[str, Any]] = {
    "double": {"facecolor": "#8a9cc4", "hatch": ""},
    "single": {"facecolor": "#e6e9f2", "hatch": "////"},
    "joint": {"facecolor": "#ffffff", "hatch": "...."},
}
NAMES = {"double": "double blocks", "single": "single blocks", "joint": "several layers at once"}
SETTINGS = {
    "font.size": 9,
    "hatch.linewidth": 0.6,
    "axes.edgecolor": QUIET,
    "axes.linewidth": 0.8,
    "text.parse_math": False,  # a prompt may hold dollar signs
}
DOTS = 144

NARROW = 3.5
"""The width in inches of a plot that a phone shows: its letters stay about as large as the page's."""


@dataclass(frozen=True)
class Bar:
    """One layer, or several skipped together. kind: double, single or joint.

    height: 1 - mean similarity. low, high: its interval, None for one value. vital: whether it is marked.
    """

    label: str
    kind: str
    height: float
    low: float | None = None
    high: float | None = None
    vital: bool = False


def check_plots() -> None:
    """Raises ImportError, in one line, where nothing can be drawn."""
    need("matplotlib", "plots", "the importance plot")


def importance_plot(
    bars: Sequence[Bar],
    *,
    title: str,
    measure: str,
    confidence: float,
    threshold: float | None = None,
    floor: float | None = None,
    narrow: bool = False,
    along: str | None = None,
    across: str = "layer that is skipped",
) -> bytes:
    """Bars of 1 - mean similarity with their intervals.

    measure: what the similarity is, in words. threshold: as a similarity. floor: the noise floor, as a
    difference. narrow: bars lie below each other, so that it can be read at the width of a phone.
    along: what the bars show, where it is not that; across: what they are of.
    """
    width = NARROW if narrow else min(15.0, max(7.5, 2.2 + 0.2 * len(bars)))
    with _figure(width, 1.8 + 0.19 * len(bars) if narrow else 4.6) as figure:
        axes = figure.add_subplot()
        line, span = (axes.axvline, axes.axvspan) if narrow else (axes.axhline, axes.axhspan)
        _draw_bars(axes, bars, narrow)
        bottom, top = _limits(bars, threshold, floor)
        _draw_intervals(axes, bars, confidence, narrow)
        _mark_vital(axes, bars, 0.025 * (top - bottom), narrow)
        if threshold is not None:
            beyond = "" if 1 - threshold < top else " (above this plot)"
            label = f"threshold: similarity {threshold:.4g}{beyond}"
            line(1 - threshold, color=INK, linestyle=(0, (6, 3)), linewidth=1.2, label=label)
        if floor is not None:
            label = f"noise floor: {difference_in_words(floor)}"
            span(0, floor, color=QUIET, alpha=0.25, linewidth=0)
            line(floor, color=QUIET, linestyle=":", linewidth=1.2, label=label)
        line(0, color=QUIET, linewidth=0.8)
        if narrow:
            _lie(axes, bars, bottom, top, _folded(along or f"importance: 1 − mean {measure}", 40))
            # The page says what it is of, in larger letters.
            figure.legend(loc="outside lower center", ncols=1, frameon=False)
            return _png(figure)
        axes.set(xlim=(-0.7, len(bars) - 0.3), ylim=(bottom, top), title=title)
        axes.set_xlabel(across)
        axes.set_ylabel(_folded(along or f"importance: 1 − mean {measure}"))
        _label_layers(axes, bars)
        if along is None:
            right = axes.secondary_yaxis("right", functions=(lambda y: 1 - y, lambda y: 1 - y))
            right.set_ylabel(f"mean {measure}")
        figure.legend(loc="outside lower center", ncols=3 if width < 10 else 7, frameon=False)
        return _png(figure)


def _lie(axes: Any, bars: Sequence[Bar], bottom: float, top: float, label: str) -> None:
    """Axes for bars that lie: the first layer at the top, its name at the left."""
    axes.set(ylim=(len(bars) - 0.3, -0.7), xlim=(bottom, top), xlabel=label, ylabel="layer")
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=8)
    for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
        tick.set_fontweight("bold" if bar.vital else "normal")


def _draw_bars(axes: Any, bars: Sequence[Bar], narrow: bool) -> None:
    draw = axes.barh if narrow else axes.bar
    for kind, style in STYLES.items():
        chosen = [(i, bar.height) for i, bar in enumerate(bars) if bar.kind == kind]
        if chosen:
            places, heights = zip(*chosen, strict=True)
            draw(places, heights, 0.78, edgecolor=INK, linewidth=0.7, label=NAMES[kind], **style)


def _draw_intervals(axes: Any, bars: Sequence[Bar], confidence: float, narrow: bool) -> None:
    known = [(i, bar) for i, bar in enumerate(bars) if bar.low is not None and bar.high is not None]
    if not known:
        return
    reach = [[bar.height - bar.low for _, bar in known], [bar.high - bar.height for _, bar in known]]
    places, heights = [i for i, _ in known], [bar.height for _, bar in known]
    axes.errorbar(
        *((heights, places) if narrow else (places, heights)),
        # Subtraction may leave a trace below zero.
        **{"xerr" if narrow else "yerr": np.maximum(reach, 0)},
        fmt="none",
        ecolor=INK,
        elinewidth=1.1,
        capsize=2.5 if narrow or len(bars) > 30 else 4,
        label=f"{confidence * 100:g} % interval of the mean",
    )


def _mark_vital(axes: Any, bars: Sequence[Bar], gap: float, narrow: bool) -> None:
    marked = [(i, max(bar.height, bar.high or 0, 0) + gap) for i, bar in enumerate(bars) if bar.vital]
    if marked:
        places, ends = zip(*marked, strict=True)
        where = (ends, places, "<") if narrow else (places, ends, "v")
        axes.plot(*where, color=INK, markersize=5, label="vital")


def _limits(bars: Sequence[Bar], threshold: float | None, floor: float | None) -> tuple[float, float]:
    heights = [bar.height for bar in bars]
    tops = [*heights, *(bar.high for bar in bars if bar.high is not None), floor or 0, 1e-6]
    lows = [0.0, *heights, *(bar.low for bar in bars if bar.low is not None)]
    # A line far above all bars would press them flat.
    line = 1 - threshold if threshold is not None and 1 - threshold < 2.5 * max(tops) else 0
    top, bottom = max(*tops, line), min(lows)
    return bottom - (0.03 * (top - bottom) if bottom < 0 else 0), top + 0.12 * (top - bottom)


def importance_map(
    values: np.ndarray, prompts: Sequence[str], bars: Sequence[Bar], *, title: str, measure: str
) -> bytes:
    """A row for each prompt, a column for each bar. values: similarities (P, L), NaN where there is none."""
    rows, columns = values.shape
    height = 1.7 + max(1.0, min(0.17 * rows, 22.0))
    with _figure(min(16.0, max(7.5, 4.2 + 0.2 * columns)), height) as figure:
        axes = figure.add_subplot()
        # What is missing is left empty, with crosses.
        axes.patch.set(hatch="xxxx", edgecolor="#d4d4d8", facecolor="#ffffff")
        differences = 1 - values
        known = differences[np.isfinite(differences)]
        largest = max(float(known.max(initial=0)), 1e-6)
        image = axes.imshow(
            np.ma.masked_invalid(differences), cmap="cividis", aspect="auto", vmin=0, vmax=largest
        )
        step = max(1, -(-rows // 120))
        shown = range(0, rows, step)
        axes.set_yticks(list(shown), [prompts[i] for i in shown], fontsize=7 if rows > 12 else 9)
        _label_layers(axes, bars)
        for i in range(1, columns):
            if bars[i].kind != bars[i - 1].kind:
                axes.axvline(i - 0.5, color="#ffffff", linewidth=3)
                axes.axvline(i - 0.5, color=INK, linewidth=1)
        marked = [i for i in range(columns) if bars[i].vital]
        if marked:
            place = axes.get_xaxis_transform()
            axes.plot(
                marked,
                [1 + 0.1 / height] * len(marked),
                "v",
                color=INK,
                markersize=5,
                transform=place,
                clip_on=False,
            )
        axes.set_xlabel("layer that is skipped" + (" (▼ vital)" if marked else ""))
        axes.set_title(title, pad=14)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label=f"1 − {measure}", fraction=0.05, pad=0.02)
        return _png(figure)


@dataclass(frozen=True)
class Dot:
    """A place in a plot of two figures, what stands beside it, and the line it belongs to."""

    x: float
    y: float
    label: str
    line: str


MARKERS = "osD^v<>Pp*hX8dH"


def trade_off_plot(dots: Sequence[Dot], *, x: str, y: str) -> bytes:
    """Dots of two figures, of both of which more is better; those of one line are joined in order.

    A ring is around those that no other one is better than in both.
    """
    lines = {name: [dot for dot in dots if dot.line == name] for name in dict.fromkeys(d.line for d in dots)}
    with _figure(7.5, 4.8) as figure:
        axes = figure.add_subplot()
        shades = [f"{0.65 * i / max(1, len(lines) - 1):.2f}" for i in range(len(lines))]
        for (name, members), shade, marker in zip(lines.items(), shades, cycle(MARKERS), strict=False):
            places = [dot.x for dot in members], [dot.y for dot in members]
            axes.plot(*places, color=shade, marker=marker, markersize=5, linewidth=0.9, label=name)
        best = front_of(dots)
        axes.plot(
            [dot.x for dot in best],
            [dot.y for dot in best],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=INK,
            label="none is better in both",
        )
        for dot in dots:
            axes.annotate(dot.label, (dot.x, dot.y), (5, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel=x, ylabel=y)
        axes.margins(0.08)
        axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _png(figure)


def front_of(dots: Sequence[Dot]) -> list[Dot]:
    """The dots that no other one is better than: in one figure, and not worse in the other."""
    return [dot for dot in dots if not any(_better(other, dot) for other in dots)]


def _better(one: Dot, other: Dot) -> bool:
    return one.x >= other.x and one.y >= other.y and (one.x, one.y) != (other.x, other.y)


def _label_layers(axes: Any, bars: Sequence[Bar]) -> None:
    """Numbers below the bars; bold for vital layers, upright for joint sets."""
    many = len(bars) > 30
    axes.set_xticks(range(len(bars)), [bar.label for bar in bars], fontsize=6.5 if many else 9)
    for label, bar in zip(axes.get_xticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.vital else "normal")
        if bar.kind == "joint":
            label.set(rotation=90)


def grid_plot(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str, label: str, across: str
) -> bytes:
    """A map of layers and windows, or heads. values: (R, C), NaN where there is none; 0 is white."""
    width = min(16.0, max(5.0, 2.6 + 0.55 * len(columns)))
    with _figure(width, 1.6 + max(1.2, min(0.24 * len(rows), 16.0))) as figure:
        axes = figure.add_subplot()
        axes.patch.set(hatch="xxxx", edgecolor="#d4d4d8", facecolor="#ffffff")
        known = values[np.isfinite(values)]
        largest = max(float(np.abs(known).max(initial=0)), 1e-6)
        image = axes.imshow(
            np.ma.masked_invalid(values), cmap="PuOr_r", aspect="auto", vmin=-largest, vmax=largest
        )
        axes.set_yticks(range(len(rows)), rows, fontsize=7 if len(rows) > 24 else 9)
        axes.set_xticks(range(len(columns)), columns, fontsize=9)
        axes.set(xlabel=across, ylabel="layer")
        axes.set_title(title, pad=14)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label=label, fraction=0.05, pad=0.02)
        return _png(figure)


@dataclass(frozen=True)
class Point:
    """A layer by two figures. kind: double, single or joint."""

    label: str
    kind: str
    x: float
    y: float


def scatter_plot(points: Sequence[Point], *, title: str, x: str, y: str) -> bytes:
    """Layers by two figures, each with its name."""
    with _figure(7.5, 5.6) as figure:
        axes = figure.add_subplot()
        for kind, style in STYLES.items():
            chosen = [point for point in points if point.kind == kind]
            if chosen:
                axes.scatter(
                    [point.x for point in chosen],
                    [point.y for point in chosen],
                    s=60,
                    marker={"double": "s", "single": "o", "joint": "D"}[kind],
                    facecolor=style["facecolor"],
                    edgecolor=INK,
                    linewidth=0.8,
                    label=NAMES[kind],
                    zorder=2,
                )
        for point in points:
            axes.annotate(
                point.label, (point.x, point.y), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
        axes.axhline(0, color=QUIET, linewidth=0.8)
        axes.axvline(0, color=QUIET, linewidth=0.8)
        axes.margins(0.08)
        axes.set(title=title, xlabel=_folded(x), ylabel=_folded(y))
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _png(figure)


def difference_in_words(value: float) -> str:
    """A difference with two digits; below single precision it says no more than that."""
    return "0" if value == 0 else f"{value:.2g}" if value >= 1e-6 else "below 0.000001"


def _folded(words: str, most: int = 60) -> str:
    """A label in lines that an axis has room for."""
    return textwrap.fill(words, most, break_long_words=False, break_on_hyphens=False)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """An empty figure, in inches, that no window system and no user's setting has a part in."""
    check_plots()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; a line about each would say no more.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DOTS, metadata={"Software": None})
    return stream.getvalue()
