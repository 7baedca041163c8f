"""The command line of the page: which model, who may reach it, and how much a job may ask for."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flux.flags import Grammar, UsageError, choices, shown
from flux.limits import MOST_PIXELS, MOST_STEPS
from flux.models import FROM_TEXT

SWITCHES = frozenset({"offload", "share", "track_usage", "dry_run"})
NUMBERS = {"port": (0, 65535), "most_steps": (1, MOST_STEPS), "most_pictures": (1, 10_000)}
NUMBERS |= {"most_pixels": (256, MOST_PIXELS**2), "most_upload": (1, 1000)}
TEXTS = ("name", "device", "dtype", "weights", "host", "user", "output")
OPTIONS = (*TEXTS, *NUMBERS, *SWITCHES)


@dataclass(frozen=True)
class JobCaps:
    """How much one job may ask for: pixels of a picture, sampling steps, pictures that are made."""

    pixels: int
    steps: int
    pictures: int


ALONE = JobCaps(pixels=MOST_PIXELS**2, steps=MOST_STEPS, pictures=1000)
"""Of a page that only its own machine reaches."""
SHARED = JobCaps(pixels=1_600_000, steps=50, pictures=16)
"""Of a page that others reach too."""


@dataclass(frozen=True)
class PageOptions:
    """What was asked for. user: name and password, or None; upload: the most MiB of a file.

    model: as a spec's `model` has it.
    """

    model: dict[str, Any] = field(default_factory=lambda: {"name": "flux-tiny"})
    share: bool = False
    host: str = "127.0.0.1"
    port: int | None = None
    user: tuple[str, str] | None = None
    output: Path = Path("output")
    caps: JobCaps = ALONE
    upload: int = 32
    dry_run: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the page."""
        return not self.share and _is_loopback(self.host)

    def in_words(self) -> str:
        """What `--dry-run` says."""
        who = "this machine alone" if self.is_local else "whoever logs in"
        where = "a public address" if self.share else f"{self.host}:{self.port or '7860 or above'}"
        name = self.model["name"]
        return f"would open a page for {who} at {where}, with {name}; runs go to {self.output / 'page'}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_options(words: Sequence[str]) -> tuple[PageOptions, list[str]]:
    """The options in what was typed, and lines to be said. Raises UsageError, one line."""
    given: dict[str, Any] = {}
    for key, value in Grammar(switches=SWITCHES, options=OPTIONS).read(words).pairs:
        if key in given:
            raise UsageError(f"--{key}: given twice")
        given[key] = _read(key, value)
    notes = []
    if given.pop("track_usage", False):
        notes.append("--track_usage: nothing is tracked, and nothing is sent anywhere")
    model = {key: given.pop(key) for key in ("name", "device", "dtype", "weights", "offload") if key in given}
    model = {"name": "flux-tiny"} | model
    if model["name"] not in FROM_TEXT:
        raise UsageError(f"--name = {shown(model['name'])}: {choices(FROM_TEXT, model['name'])}")
    share, host = given.get("share", False), given.get("host", PageOptions.host)
    user = given.get("user")
    reached = PageOptions(share=share, host=host).is_local
    if not reached and user is None:
        asked = "--share" if share else f"--host {host}"
        raise UsageError(
            f"{asked}: others would reach this page: give --user NAME:PASSWORD, which it then asks for"
        )
    usual = ALONE if reached else SHARED
    caps = JobCaps(
        *(given.get(f"most_{name}", getattr(usual, name)) for name in ("pixels", "steps", "pictures"))
    )
    return (
        PageOptions(
            model=model,
            share=share,
            host=host,
            port=given.get("port"),
            user=user,
            output=Path(given.get("output", PageOptions.output)),
            caps=caps,
            upload=given.get("most_upload", PageOptions.upload),
            dry_run=given.get("dry_run", False),
        ),
        notes,
    )


def _read(key: str, value: str | bool | list[str]) -> Any:
    """What a word means for an option."""
    if key in SWITCHES:
        if value not in (True, "True", "true", "False", "false"):
            raise UsageError(f"--{key} = {shown(value)}: takes true or false, or stands alone")
        return value in (True, "True", "true")
    if key in NUMBERS:
        lowest, highest = NUMBERS[key]
        if not str(value).isdecimal() or not lowest <= int(value) <= highest:
            raise UsageError(
                f"--{key} = {shown(value)}: must be a whole number between {lowest} and {highest}"
            )
        return int(value)
    if key == "user":
        name, colon, password = str(value).partition(":")
        if not (name and colon and password):
            raise UsageError("--user: must be NAME:PASSWORD, neither of them empty")
        return name, password
    return value
