"""The ways to share a device's memory between the parts of a model. Imports no torch."""

import re

NONE, ENCODERS, MODULATION, STREAM, AUTO = OFFLOADS = ("none", "encoders", "modulation", "stream", "auto")
"""none: every part stays on the device.
encoders: each part is there only while it is at work, text encoders, flow model, autoencoder.
modulation: besides, the flow model is there without its modulation layers, evaluated once for a whole run.
stream: besides, the blocks of the flow model and of T5 are there three at a time; stream:12: but for twelve
of the flow model and as many of T5, which stay.
auto: the first of these that fits into the memory that is free."""

Offload = bool | str
"""A name of OFFLOADS, or `stream:12`; True is `encoders`, False is `none`."""

_STREAM = re.compile(rf"{STREAM}(?::([0-9]{{1,4}}))?")

STREAM_PATTERN = f"^{STREAM}:[0-9]{{1,4}}$"
"""Of JSON Schemas."""

OFFLOAD_KEYS = (False, True, MODULATION, STREAM, AUTO)
"""The ways as they stand in specs: as they were written before there were any but two."""


def offload_key(value: Offload) -> Offload:
    """A way as it stands in specs. ValueError, in one line, for what is none."""
    key = {NONE: False, ENCODERS: True}.get(value, value) if isinstance(value, str) else value
    if isinstance(key, bool) or key in OFFLOAD_KEYS[2:]:
        return key
    if is_stream(key):
        return stream_key(staying_blocks(key))
    raise ValueError(f"offload {value!r} does not exist: choose from {', '.join(OFFLOADS)}")


def offload_name(value: Offload) -> str:
    """A way's name; ValueError as `offload_key`."""
    key = offload_key(value)
    return {False: NONE, True: ENCODERS}[key] if isinstance(key, bool) else key


def is_offload(text: str) -> bool:
    """Whether a word is the name of a way."""
    return text in OFFLOADS or is_stream(text)


def is_stream(way: Offload | None) -> bool:
    """Whether blocks pass through, in whichever number they stay."""
    return isinstance(way, str) and _STREAM.fullmatch(way) is not None


def staying_blocks(way: Offload) -> int:
    """How many blocks of a way of streaming stay."""
    return int(_STREAM.fullmatch(way)[1] or 0)


def stream_key(staying: int) -> str:
    """The way of streaming in which so many blocks stay."""
    return f"{STREAM}:{staying}" if staying else STREAM


def kind_of(way: Offload) -> Offload:
    """A way without its number: how weights that wait are packed."""
    return STREAM if is_stream(way) else way
