"""What the device can do: rates of matrix products and of attention, by each backend that is available."""

import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from gpu_common.clock import milliseconds
from gpu_common.record import Record, one_line
from gpu_common.scale import Setup, work
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@torch.no_grad()
def run(setup: Setup, record: Record) -> None:
    record.put(work_tflop_batch_1=work(setup.scale, 1))
    products(setup, record)
    attentions(setup, record)


def products(setup: Setup, record: Record) -> None:
    """One large square product, and the two of a single block: the widest of the model."""
    scale, n = setup.scale, setup.scale.matmul
    hidden, wide = scale.params.hidden_size, int(scale.params.mlp_ratio * scale.params.hidden_size)
    shapes = {
        "square": (n, n, n),
        "into the block": (scale.tokens, hidden, 3 * hidden + wide),
        "out of the block": (scale.tokens, hidden + wide, hidden),
    }
    rates = {}
    for name, (rows, inner, columns) in shapes.items():
        a = torch.randn(rows, inner, device=setup.device, dtype=setup.dtype)
        b = torch.randn(inner, columns, device=setup.device, dtype=setup.dtype)
        rates[name] = 2 * rows * inner * columns / time_of(lambda a=a, b=b: a @ b, setup) / 1e12
        record.put(matmul=rates, matmul_tflops=max(rates.values()))


def attentions(setup: Setup, record: Record) -> None:
    """Attention of the model's shape: as torch chooses, and by each backend alone."""
    heads, length = setup.scale.params.num_heads, setup.scale.tokens
    dim = setup.scale.params.hidden_size // heads
    q, k, v = torch.randn(3, 1, heads, length, dim, device=setup.device, dtype=setup.dtype)
    flop = 4 * length**2 * heads * dim

    def rate() -> dict[str, float]:
        return {"tflops": flop / time_of(lambda: attend(q, k, v), setup) / 1e12}

    found: dict[str, dict[str, Any]] = {"as torch chooses": rate()}
    for name, backend in BACKENDS.items():
        try:
            # What a backend lacks is said in warnings, and then in the error.
            with sdpa_kernel(backend), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = rate()
        except RuntimeError as error:
            found[name] = {"unavailable": one_line(error)}
        rates = [each["tflops"] for each in found.values() if "tflops" in each]
        record.put(attention=found, attention_tflops=max(rates))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def time_of(call: Callable[[], object], setup: Setup) -> float:
    """The median in seconds."""
    return statistics.median(milliseconds(call, setup.device, 5, 20)) / 1000


def table(figures: dict[str, Any]) -> list[str]:
    lines = ["| what | TFLOP/s |", "| --- | --- |"]
    lines += [f"| matmul, {name} | {rate:.3g} |" for name, rate in figures.get("matmul", {}).items()]
    for name, each in figures.get("attention", {}).items():
        said = f"{each['tflops']:.3g}" if "tflops" in each else "not available"
        lines.append(f"| attention, {name} | {said} |")
    return lines
