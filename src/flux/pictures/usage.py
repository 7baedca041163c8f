"""Reports of use to Black Forest Labs, which its commercial licence asks for."""

import json
import os
import urllib.request
import warnings

from flux.models import spec_of

BFL_API_KEY = os.getenv("BFL_API_KEY")
USAGE_URL = "https://api.bfl.ai/v1/licenses/models/{slug}/usage"


def track_usage_via_api(name: str, n: int = 1) -> None:
    """Report `n` pictures to Black Forest Labs, as its commercial licence asks; to fail is a warning."""
    key, slug = BFL_API_KEY or os.getenv("BFL_API_KEY"), spec_of(name).usage_slug
    if slug is None or not key:
        why = "the model needs no report" if slug is None else "set BFL_API_KEY"
        print(f"the use of {name} is not reported: {why}")
        return
    request = urllib.request.Request(
        USAGE_URL.format(slug=slug),
        data=json.dumps({"number_of_generations": n}).encode(),
        headers={"x-key": key, "Content-Type": "application/json"},
        method="POST",
    )
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except OSError as error:
        warnings.warn(f"the use of {name} could not be reported: {error}", stacklevel=2)
