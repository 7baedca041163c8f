"""A drop-in replacement of the official FLUX package, written anew, with hooks into every layer."""

__version__ = "0.2.0"
version_tuple = (0, 1, 0)

PACKAGE = "flux"

__all__ = ["PACKAGE", "PACKAGE_ROOT", "version_tuple"]


def __getattr__(name: str) -> object:
    """PACKAGE_ROOT, when asked for: a command must get to `flux.entry` before anything slow is imported."""
    if name != "PACKAGE_ROOT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pathlib import Path

    return Path(__file__).parent


def __dir__() -> list[str]:
    return [*globals(), "PACKAGE_ROOT"]
