"""A drop-in replacement of the official FLUX package, written anew, with hooks into every layer."""

from pathlib import Path

__version__ = "0.1.0"
version_tuple = (0, 1, 0)

PACKAGE = "flux"
PACKAGE_ROOT = Path(__file__).parent
