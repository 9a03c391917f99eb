"""Products that `benchmarks.gpu` checks: tails, orders of B, batches, rows, splits, epilogues."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.on_gpu.checks import Part, applied

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Product(nn.Module):
    """x·W (rows of W are along n) or x·Wᵀ (along k), what follows it, and a residual."""

    def __init__(
        self,
        depth: int,
        columns: int,
        *,
        along: str = "k",
        bias: bool = False,
        after: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        shape = (columns, depth) if along == "k" else (depth, columns)
        self.along, self.after = along, after
        self.weight = nn.Parameter(torch.randn(shape) / depth**0.5)
        self.bias = nn.Parameter(torch.randn(columns)) if bias else None

    def forward(self, x: Tensor, *residual: Tensor) -> Tensor:
        y = functional.linear(x, self.weight) if self.along == "k" else x @ self.weight
        if self.bias is not None:
            y = y + self.bias
        return y if self.after is None else self.after(y, *residual)


def product(
    rows: int | tuple[int, ...],
    depth: int,
    columns: int,
    *,
    along: str = "k",
    bias: bool = False,
    after: Callable[..., Tensor] | None = None,
    residual: bool = False,
) -> Part:
    """A product of an input and a weight; `after` gets the sums, and the residual if any."""
    outer = (rows,) if isinstance(rows, int) else rows
    inputs = ((*outer, depth), (*outer, columns)) if residual else ((*outer, depth),)
    return Part(lambda: Product(depth, columns, along=along, bias=bias, after=after), inputs)


def products() -> dict[str, Part]:
    """More than 64 rows, as wgmma, CUTLASS and cuBLASLt have them: of small tiles.

    The shallow one has two or three tiles of 128 × 128 for every warp group that stays.
    """
    return {
        "tails": product(257, 203, 131),
        "tails_along_n": product(257, 203, 131, along="n"),
        "tails_of_chunks": product(197, 200, 136, bias=True),
        "along_k": product(200, 384, 520),
        "along_n": product(200, 384, 520, along="n"),
        "deep": product(128, 16384, 64),
        "deep_along_n": product(128, 16384, 64, along="n"),
        "shared_weight": product((3, 4, 40), 64, 48),
        "batch": applied(torch.matmul, (5, 96, 72), (5, 72, 80)),
        "batch_along_k": applied(lambda a, b: a @ b.mT, (2, 3, 130, 64), (2, 3, 100, 64)),
        "batch_shares_b": applied(torch.matmul, (5, 70, 64), (1, 64, 96)),
        "a_along_m": applied(lambda a, b: a.mT @ b, (72, 160), (72, 136)),
        **{
            name: product(160, 136, 264, bias=True, after=function)
            for name, function in ACTIVATIONS.items()
        },
        "residual": product(160, 136, 264, bias=True, after=torch.add, residual=True),
        "residual_tails": product(161, 136, 131, bias=True, after=torch.add, residual=True),
        "gelu_residual": product(160, 136, 264, bias=True, after=gelu_and_residual, residual=True),
        "silu_times": product(
            160, 136, 264, after=lambda y, r: functional.silu(y) * r, residual=True
        ),
        "shallow": product(4096, 128, 2304, bias=True, after=functional.gelu),
    }


def gelu_and_residual(y: Tensor, residual: Tensor) -> Tensor:
    """What follows the products of which there are few here: both kinds at once."""
    return functional.gelu(y) + residual


def large_products() -> dict[str, Part]:
    """What takes the large tiles: together with small products they would have the small ones.

    Most are several tiles for every block that stays on one of 132 multiprocessors: 288 of
    128 × 256 where there are 4096 rows.
    """
    return {
        "large": product(4096, 1024, 2304, bias=True, after=gelu_and_residual, residual=True),
        "large_deep": product(4096, 4096, 1024),
        "large_along_n": product(4096, 2048, 2304, along="n", after=torch.add, residual=True),
        "large_tails": product(4100, 1024, 2200, bias=True, after=gelu_and_residual, residual=True),
        "middle": product(2048, 768, 1024, bias=True, after=gelu_and_residual, residual=True),
        "middle_split": product(1024, 2048, 768, bias=True, after=functional.gelu),
        "small": product(512, 512, 1024, bias=True, after=gelu_and_residual, residual=True),
    }


def few_rows() -> dict[str, Part]:
    """At most 64 rows: matrix-vector kernels, tiles for few rows, k split among blocks."""
    rows = {
        f"{name}_{count}": product(count, 512, 1032, along=along)
        for name, along in (("along_k", "k"), ("along_n", "n"))
        for count in (1, 3, 8, 17, 33, 64)
    }
    return rows | {
        "tails_1": product(1, 203, 131),
        "tails_5": product(5, 203, 131, along="n"),
        "tails_40": product(40, 203, 131),
        "deep_1": product(1, 16384, 72),
        "deep_8": product(8, 16384, 72, along="n"),
        "deep_33": product(33, 16384, 72),
        "wide_1": product(1, 256, 50257),
        "gelu_1": product(1, 512, 776, bias=True, after=functional.gelu),
        "residual_1": product(1, 512, 776, bias=True, after=torch.add, residual=True),
        "silu_times_3": product(
            3, 512, 776, after=lambda y, r: functional.silu(y) * r, residual=True
        ),
        "residual_17": product(17, 512, 776, bias=True, after=torch.add, residual=True),
        "gelu_tanh_33": product(33, 512, 776, bias=True, after=ACTIVATIONS["gelu_tanh"]),
        "batch_of_rows": applied(torch.matmul, (12, 1, 64), (12, 64, 200)),
        "column": applied(torch.matmul, (150, 96), (96, 1)),
    }
