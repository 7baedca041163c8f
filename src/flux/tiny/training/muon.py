"""Muon (arXiv 2502.16982) in float32 and for convolutions too; torch's own takes bfloat16, which many CPUs
emulate, and matrices alone."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class FloatMuon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal. A kernel (out, in, h, w) counts as a matrix (out, in h w).

    lr: length of a step, the same for each singular direction of a matrix that is not tall; a number or a
    tensor of none.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.flatten(1).shape].append(p)
            for shape, params in alike.items():
                steps = orthogonal(torch.stack([self._averaged(p, group["momentum"]) for p in params]))
                lr = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, step in zip(params, steps, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(lr * step.view_as(p))

    def _averaged(self, p: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum of a parameter's gradient, as a matrix."""
        state = self.state[p]
        average = state.setdefault("momentum_buffer", torch.zeros_like(p))
        average.lerp_(p.grad, 1 - momentum)
        return torch.lerp(p.grad, average, momentum).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values of about 1, (N, rows, columns), by Newton-Schulz steps."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
