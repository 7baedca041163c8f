"""Reports of use, which Black Forest Labs' commercial licences ask for: this package sends none."""

import os

BFL_API_KEY = os.getenv("BFL_API_KEY")


def track_usage_via_api(name: str, n: int = 1) -> None:
    """Say, in one line, that the use of a model is not reported; nothing is sent, whatever is asked."""
    what = "this package sends nothing; if your licence asks for reports, send them yourself"
    print(f"the use of {name} is not reported: {what}")
