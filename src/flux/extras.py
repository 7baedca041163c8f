"""Packages that only some uses need: imported where they are used, and named in one line when missing."""

import importlib
from types import ModuleType

PACKAGES = {"skimage": "scikit-image"}
"""What a package is called for pip, where that is not the name it is imported by."""


def need(module: str, extra: str, what: str = "this") -> ModuleType:
    """Import a module that comes with the extra `flux[extra]`. what: the use that needs it, in words.

    Raises ImportError, in one line that says how to install it.
    """
    top = module.partition(".")[0]
    package = PACKAGES.get(top, top)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == top:
            raise ImportError(f'{what} needs {package}: pip install "flux[{extra}]"') from None
        reason = str(error)
    except ImportError as error:
        reason = " ".join(str(error).split())
    raise ImportError(
        f"{what} needs {package}, which cannot be imported here ({reason}); "
        f'pip install --upgrade "flux[{extra}]"'
    )
