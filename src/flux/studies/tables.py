"""Tables of figures as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence


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
