"""Upstream's TensorRT engines, which this package does not carry: whoever asks for them is told so."""

from typing import Any

__path__: list[str] = []  # in an existing install none of upstream's own modules is found here


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"flux.trt.{name}: TensorRT engines are not carried, models run in PyTorch")
