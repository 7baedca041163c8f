"""Reports of use, which Black Forest Labs' commercial licences ask for: this package sends none."""

import os

BFL_API_KEY = os.getenv("BFL_API_KEY")


def track_usage_via_api(name: str, n: int = 1) -> None:
    """Say, in one line, that the use of a model is not reported; nothing is sent, whatever is asked."""
    pictures = "1 picture" if n == 1 else f"{n} pictures"
    what = "this package sends nothing; if your licence asks for it, report yourself"
    print(f"{pictures} by {name} not reported: {what}")
