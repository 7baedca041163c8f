"""The hub: whether it answers, what its cache holds, downloads, and logging in."""

import getpass
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from flux.weights.check import CheckpointError

PATIENCE = 5.0  # seconds for the first answer


class NoHub(OSError):
    """The hub does not answer, or the user has forbidden to ask it."""


def require_hub() -> None:
    """Raise NoHub, in one line, if the hub does not answer.

    It is asked once before its client, which would keep on trying for half a minute.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise NoHub("HF_HUB_OFFLINE is set")
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            pass
    except urllib.error.HTTPError:
        pass  # an answer, whatever it says
    except OSError as error:
        raise NoHub(f"{constants.ENDPOINT} does not answer") from error


def cached_file(repo_id: str, filename: str) -> Path | None:
    """A file in the hub's cache, None if it is not there. Raises ValueError for what cannot be on the hub."""
    try:
        import huggingface_hub
    except ImportError:
        return None
    found = huggingface_hub.try_to_load_from_cache(repo_id, filename)
    return Path(found) if isinstance(found, str) else None


def fetch_file(
    repo_id: str,
    filename: str,
    folder: Path,
    *,
    env_var: str,
    download: Callable[..., str] | None = None,
) -> Path:
    """A file from the hub's cache, or else downloaded into `folder`.

    env_var: what the user may set instead. download: instead of `huggingface_hub.hf_hub_download`.
    Raises CheckpointError if it cannot be had.
    """
    import huggingface_hub

    cached = cached_file(repo_id, filename)
    if cached is not None:
        return cached
    try:
        if download is None:
            require_hub()
        fetch = download or huggingface_hub.hf_hub_download
        return Path(fetch(repo_id, filename, local_dir=folder))
    except Exception as error:  # The hub's client raises whatever its HTTP library of the day does.
        raise CheckpointError(
            f"{_problem(repo_id, filename, error)}, or set {env_var} to a file you have"
        ) from error


def _problem(repo_id: str, filename: str, error: Exception) -> str:
    """Why a download failed and what to do, in words."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    login = "log in with `hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{filename} needs a licence: accept it at {page} and {login}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{filename}: {page} is not there or not open to you: {login}, check HF_ENDPOINT"
    if isinstance(error, errors.OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return (
            f"{filename} is not in the cache and HF_HUB_OFFLINE forbids to download it: unset HF_HUB_OFFLINE"
        )
    if isinstance(error, NoHub | errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return f"{filename} cannot be downloaded, no answer from {page}: check the network or set HF_ENDPOINT"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{filename} is not at {page}: check HF_ENDPOINT"
    response = getattr(error, "response", None)
    if getattr(response, "status_code", None) in (401, 403):
        return f"{filename} is not open to you: accept the licence at {page} and {login}"
    reason = next(iter(str(error).strip().splitlines()), "")
    problem = f"{type(error).__name__}: {reason}"
    return f"{filename} cannot be downloaded from {page} ({problem}): check network and disk"


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
