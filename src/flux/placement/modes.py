"""The ways to share a device's memory between the parts of a model. Imports no torch."""

NONE, ENCODERS, MODULATION, STREAM, AUTO = OFFLOADS = ("none", "encoders", "modulation", "stream", "auto")
"""none: every part stays on the device.
encoders: each part is there only while it is at work, text encoders, flow model, autoencoder.
modulation: besides, the flow model is there without its modulation layers, evaluated once for a whole run.
stream: besides, the blocks of the flow model and of T5 are there three at a time.
auto: the first of these that fits into the memory that is free."""

Offload = bool | str
"""A name of OFFLOADS; True is `encoders`, False is `none`."""

OFFLOAD_KEYS = (False, True, MODULATION, STREAM, AUTO)
"""The ways as they stand in specs: as they were written before there were any but two."""


def offload_key(value: Offload) -> Offload:
    """A way as it stands in specs. ValueError, in one line, for what is none."""
    key = {NONE: False, ENCODERS: True}.get(value, value) if isinstance(value, str) else value
    if isinstance(key, bool) or key in OFFLOAD_KEYS[2:]:
        return key
    raise ValueError(f"offload {value!r} does not exist: choose from {', '.join(OFFLOADS)}")


def offload_name(value: Offload) -> str:
    """A way's name; ValueError as `offload_key`."""
    key = offload_key(value)
    return {False: NONE, True: ENCODERS}[key] if isinstance(key, bool) else key
