"""Packages that only some uses need: imported where they are used, and named in one line when missing."""

import importlib
import logging
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

PACKAGES = {"skimage": "scikit-image"}
"""What a package is called for pip, where that is not the name it is imported by."""


NOISY = ("torchao", "torch.utils._pytree")
"""Loggers that tell, as torchao is imported, of kernels that a build of torch is too old or too new for."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torchao tells those who develop it; transformers imports it too, where it is installed."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


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


def lazy_names(
    module: str, sources: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module that hands on names of packages too costly to import with it.

    sources: from a name to where it is, `package` or `package:name`. Such a name can be imported and patched
    like any other. AttributeError where the package is missing.
    """

    def __getattr__(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        try:
            return pkgutil.resolve_name(sources[name])
        except ImportError as error:
            raise AttributeError(f"{module}.{name} cannot be had: {error}") from error

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[module]), *sources})

    return __getattr__, __dir__
