"""Whether the hub answers, asked once before its client, which would keep on trying for half a minute."""

import urllib.error
import urllib.request

PATIENCE = 5.0  # seconds for the first answer


def require_hub() -> None:
    """Raise OSError, in one line, if the hub does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            pass
    except urllib.error.HTTPError:
        pass  # an answer, whatever it says
    except OSError as error:
        raise OSError(f"{constants.ENDPOINT} does not answer") from error
