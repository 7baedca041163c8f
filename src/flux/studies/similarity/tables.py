"""The columns of figures in tables."""

from collections.abc import Sequence

from flux.pictures.metrics import scaled
from flux.studies.similarity.measures import Figures
from flux.studies.similarity.spec import COSINES


def figure_titles(metrics: Sequence[str]) -> list[str]:
    """A column for each metric; a cosine has a second one, on the scale from 0 to 1."""
    return [title for metric in metrics for title in (metric, *_scaled_title(metric))]


def figure_cells(metrics: Sequence[str], figures: Figures) -> list[float | None]:
    """The cells for `figure_titles`."""
    return [
        value
        for metric in metrics
        for value in (figures[metric], *([_scaled(figures[metric])] if metric in COSINES else []))
    ]


def _scaled_title(metric: str) -> list[str]:
    return [f"{metric}_scaled"] if metric in COSINES else []


def _scaled(value: float | None) -> float | None:
    return None if value is None else scaled(value)
