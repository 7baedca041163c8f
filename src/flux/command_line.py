"""From `--flag value` to a function call, for every command alike; mistakes and warnings in one line.

`fire` reads the values. Before it runs, the flags are checked against the function's parameters, for what
fire says of an unknown flag fills a page, and a stray word it takes for the next parameter.
"""

import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flux.device import OutOfMemory, out_of_memory_hint

Command = Callable[..., None]

EXIT_OK, EXIT_MISTAKE, EXIT_INTERRUPTED = 0, 2, 130


class UsageError(ValueError):
    """The command line itself is wrong."""


def run(command: Command, arguments: list[str], title: str) -> int:
    """Call `command` with the parameters that `arguments` name, and return the exit code.

    title: what the user typed to come here, such as "python -m flux t2i".
    Mistakes of the user (ValueError, OSError, a missing package, too little memory) end in one line on stderr
    and code 2; faults of ours are raised.
    """
    with _one_line_warnings():
        try:
            if asks_for_help(arguments):
                print(help_text(command, title))
                return EXIT_OK
            with out_of_memory_hint():
                _call(command, with_full_names(command, arguments), title)
        except KeyboardInterrupt:
            say("stopped")
            return EXIT_INTERRUPTED
        except (ValueError, OSError, ImportError, OutOfMemory) as error:
            return mistake(error)
        except (MemoryError, RuntimeError) as error:
            # On a CPU, torch says so in a plain RuntimeError.
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            return mistake("the machine is out of memory: use a smaller picture")
    return EXIT_OK


def mistake(error: Exception | str) -> int:
    """Say what is wrong, in one line on stderr; returns the exit code for it."""
    say(f"flux: {str(error) or type(error).__name__}")
    return EXIT_MISTAKE


def say(text: str) -> None:
    """One line on stderr, whatever line breaks the text has."""
    print(" ".join(text.split()), file=sys.stderr)


def asks_for_help(arguments: list[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)


def help_text(command: Command, title: str) -> str:
    """The command's docstring and its options with their defaults."""
    parameters = inspect.signature(command).parameters.values()
    rows = [f"  --{p.name}" + ("" if p.default is p.empty else f" {_shown(p.default)}") for p in parameters]
    about = inspect.getdoc(command) or ""
    return "\n".join((f"usage: {title} --option value ...", "", about, "", "Options and defaults:", *rows))


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) and " " in value else str(value)


def with_full_names(command: Command, arguments: list[str]) -> list[str]:
    """The arguments with every flag spelt as `command` spells its parameter.

    Takes `--num-steps 4`, `--num_steps=4`, `--loop` and `--noloop`, and a single letter, as in `-p "a cat"`,
    that one of upstream's parameters alone begins with. Raises UsageError for other flags and stray words.
    """
    full: list[str] = []
    expects_value = False
    for argument in arguments:
        if is_flag(argument):
            flag, equals, value = argument.partition("=")
            full.append(f"--{_full_name(command, flag)}{equals}{value}")
            expects_value = not equals
        elif expects_value:
            full.append(argument)
            expects_value = False
        else:
            raise UsageError(f"unexpected word {argument!r}: give --option value, and quote a prompt")
    return full


def is_flag(argument: str) -> bool:
    """Whether fire takes an argument for a flag; a negative number is a value."""
    return argument.startswith("--") or (argument[:1] == "-" and argument[1:2].isalpha())


def _full_name(command: Command, flag: str) -> str:
    parameters = inspect.signature(command).parameters
    key = flag.lstrip("-").replace("-", "_")
    if key in parameters or (key.startswith("no") and key[2:] in parameters):
        return key
    upstream = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    meant = [name for name in upstream if len(key) == 1 and name.startswith(key)]
    if len(meant) == 1:
        return meant[0]
    raise UsageError(f"unknown option {flag}; options: {', '.join('--' + name for name in parameters)}")


def _call(command: Command, arguments: list[str], title: str) -> None:
    import fire
    from fire.decorators import SetParseFns

    # Text is taken as it is typed: fire would make a list of "a cat, a dog" and cut "no # sign" at the #.
    parameters = inspect.signature(command).parameters.values()
    as_text = {p.name: str for p in parameters if p.annotation in (str, str | None)}
    fire.Fire(SetParseFns(**as_text)(command), command=arguments, name=title)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show what the package warns of as one clean line; other warnings stay as they are."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_one_line(message, category, *place, **more) -> None:
            if category is UserWarning:
                say(f"note: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_one_line
        yield
