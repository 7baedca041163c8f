"""From `--flag value` to a function call, for every command alike.

`fire` reads the values. Before it runs, the flags are checked against the function's parameters, for what
fire says of an unknown flag fills a page, and a stray word it takes for the next parameter.
"""

import inspect
import json
from collections.abc import Callable

from flux.outcome import EXIT_OK, outcome

Command = Callable[..., None]


class UsageError(ValueError):
    """The command line itself is wrong."""


def run(command: Command, arguments: list[str], title: str) -> int:
    """Call `command` with the parameters that `arguments` name, and return the exit code.

    title: what the user typed to come here, such as "python -m flux t2i". How it ends: see `flux.outcome`.
    """
    if asks_for_help(arguments):
        print(help_text(command, title))
        return EXIT_OK
    return outcome(lambda: _call(command, with_full_names(command, arguments), title), name="flux")


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
