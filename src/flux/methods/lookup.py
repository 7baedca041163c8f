"""A method by its name: one of METHODS, or a user's own, `package.module:function`. Imports no torch."""

import inspect
import math
from collections.abc import Callable
from importlib import import_module

from flux.methods import METHODS, Choice, MethodRecord, Setting, method_record


def find_method(name: str) -> MethodRecord:
    """The row of a method; for a function of a user's own, a row made from what it says of itself.

    An own one takes the task, and settings as keywords with numbers, or true and false, as defaults. Its
    module is imported.
    Raises ValueError, in one line, for a name that is neither, and for a function that is no method.
    """
    if ":" in name:
        return _own(name, load_function(name))
    try:
        return method_record(name)
    except KeyError:
        choices = ", ".join(row.name for row in METHODS)
        raise ValueError(
            f"there is no method {name!r}: choose from {choices}, or name your own as package.module:function"
        ) from None


def load_function(dotted: str) -> Callable:
    """The function called `package.module:function`; ValueError, in one line, where there is none."""
    module, _, attribute = dotted.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a user's module raises while it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"the method {dotted!r} cannot be imported ({reason})") from error
    if not callable(function):
        raise ValueError(f"the method {dotted!r} is no function but {function!r}")
    return function


def _own(name: str, function: Callable) -> MethodRecord:
    task, *settings = inspect.signature(function).parameters.values() or [None]
    for each in settings:
        number = isinstance(each.default, int | float) and math.isfinite(each.default)
        if each.kind is not each.KEYWORD_ONLY or not number:
            raise ValueError(
                f"the method {name!r} must take a task, and settings as keywords with numbers as defaults, "
                f"as in (task, *, guidance=3.5); its {each.name!r} is none"
            )
    if task is None or task.kind not in (task.POSITIONAL_ONLY, task.POSITIONAL_OR_KEYWORD):
        raise ValueError(f"the method {name!r} must take a task, as in (task, *, guidance=3.5)")
    about = (inspect.getdoc(function) or "a method of your own").splitlines()[0]
    return MethodRecord(
        name,
        about,
        function=name,
        source="your own",
        steps=28,
        evaluations="as counted",
        settings={each.name: _setting(each.default) for each in settings},
    )


def _setting(default: float | bool) -> Setting | Choice:
    if isinstance(default, bool):
        return Choice(default, (True, False), "your own")
    return Setting(default, -math.inf, math.inf, "your own")
