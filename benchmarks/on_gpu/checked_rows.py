"""Normalizations, softmax and reductions that `benchmarks.gpu` checks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.on_gpu.checks import Part, applied
from benchmarks.on_gpu.modules import AddNorm

WIDTHS = (64, 300, 1024, 5000)


class Normalized(nn.Module):
    """A normalization with weights that are not one and zero, of a sum."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1.0, 0.5)

    def forward(self, *x: Tensor) -> Tensor:
        total: Tensor = self.norm(sum(x[1:], x[0]))
        return total


def norms(name: str, kind: type[nn.Module]) -> dict[str, Part]:
    """A normalization of each width, without and with a residual."""
    return {
        f"{name}{word}_{width}": Part(
            lambda width=width: Normalized(kind(width)), ((37, width),) * count
        )
        for width in WIDTHS
        for count, word in ((1, ""), (2, "_of_sum"))
    }


def rows() -> dict[str, Part]:
    """Kernels that read rows, and those that reduce.

    Sums are of absolute values: such that cancel would be a matter of luck.
    """
    return {
        **norms("layer_norm", nn.LayerNorm),
        **norms("rms_norm", nn.RMSNorm),
        "stored_sum": Part(lambda: AddNorm(1024), ((3, 37, 1024), (1024,))),
        "many_rows": Part(lambda: Normalized(nn.LayerNorm(64)), ((9001, 64),)),
        **{
            f"softmax_{n}": applied(lambda x: x.softmax(-1), (37, n))
            for n in (1, 7, *WIDTHS, 50257)
        },
        "softmax_scaled": applied(lambda x, y: (x * 0.125 + y).softmax(-1), (4, 37, 300), (300,)),
        "softmax_first": applied(lambda x: x.softmax(0), (65, 47)),
        "softmax_middle": applied(lambda x: x.softmax(1), (5, 33, 47)),
        "log_softmax": applied(lambda x: x.log_softmax(-1), (37, 300)),
        **reductions(),
    }


def reductions() -> dict[str, Part]:
    """Over the last, the first, a middle one, two, and all axes."""
    functions = {
        "sum": lambda x, axes: x.abs().sum(axes),
        "mean": lambda x, axes: x.abs().mean(axes),
        "max": torch.amax,
        "min": torch.amin,
    }
    places: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "last": ((70, 301), (1,)),
        "long": ((3, 40000), (1,)),
        "first": ((301, 70), (0,)),
        "middle": ((5, 133, 36), (1,)),
        "both_ends": ((17, 12, 65), (0, 2)),
        "all": ((61, 307), (0, 1)),
    }
    return {
        f"{name}_{place}": applied(lambda x, function=function, axes=axes: function(x, axes), shape)
        for name, function in functions.items()
        for place, (shape, axes) in places.items()
    }
