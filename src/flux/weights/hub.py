"""The hub: whether it answers, and logging in.

It is asked once before its client, which would keep on trying for half a minute.
"""

import getpass
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


def ensure_hf_auth() -> bool:
    """Whether there is a token for the hub: HF_TOKEN, or one that `hf auth login` has stored."""
    from huggingface_hub import get_token

    return get_token() is not None


def prompt_for_hf_auth() -> bool:
    """Ask for a token on the terminal and log in with it; whether that worked."""
    from huggingface_hub import login

    try:
        token = getpass.getpass("Hugging Face token (from huggingface.co/settings/tokens): ").strip()
    except (EOFError, KeyboardInterrupt):
        return False
    if not token:
        return False
    try:
        login(token=token)
    except Exception as error:  # The hub's client raises whatever its HTTP library of the day does.
        print(f"the login failed: {next(iter(str(error).splitlines()), type(error).__name__)}")
        return False
    return True
