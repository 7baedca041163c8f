"""Tables of figures as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

from flux.pictures.metrics import scaled
from flux.studies.similarity.measures import Figures
from flux.studies.similarity.spec import COSINES


def csv_text(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers have eight digits; what is None is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.8g}" if isinstance(value, float) else value


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
