"""Element-wise chains, movement and indices that `benchmarks.gpu` checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.on_gpu.checks import Index, Part, applied
from benchmarks.on_gpu.modules import rotary_tables, rotated

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    **{f.__name__: f for f in (torch.exp, torch.sin, torch.cos, torch.tanh, torch.erf)},
    **{f.__name__: f for f in (torch.sigmoid, torch.abs, torch.neg, torch.sign, torch.relu)},
    **{f.__name__: f for f in (torch.floor, torch.ceil, torch.round, torch.square)},
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.5).rsqrt(),
    "log": lambda x: (x.abs() + 2).log(),
    "reciprocal": lambda x: (x.abs() + 0.5).reciprocal(),
}


class Rotary(nn.Module):
    """Queries of 9 positions, turned."""

    def __init__(self) -> None:
        super().__init__()
        tables = [rotary_tables(position, 64) for position in range(9)]
        self.register_buffer("cos", torch.stack([cos for cos, _ in tables]))
        self.register_buffer("sin", torch.stack([sin for _, sin in tables]))

    def forward(self, x: Tensor) -> Tensor:
        return rotated(x, self.cos, self.sin)


def pairs_turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of neighbouring pairs."""
    first, second = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten(-2)


def greatest(x: Tensor, axis: int) -> Tensor:
    """The elements at the positions of the greatest ones, of which there may be several."""
    return x.gather(axis, x.argmax(axis, keepdim=True))


def maps() -> dict[str, Part]:
    """Everything that is a map over elements."""
    odd = (37, 1001)
    return {
        **{name: applied(function, odd) for name, function in UNARY.items()},
        **binary(odd),
        **movement(),
        **indices(),
    }


def binary(odd: tuple[int, int]) -> dict[str, Part]:
    """Chains of several operands, broadcast and not."""
    rows, columns = odd
    return {
        "gated": applied(lambda x, y: functional.silu(x) * y, odd, odd),
        "gated_16_bytes": applied(lambda x, y: functional.silu(x) * y, (64, 1024), (64, 1024)),
        "with_row": applied(lambda x, y: torch.tanh(x * y) + y, odd, (columns,)),
        "with_column": applied(lambda x, y: torch.exp(x) * y - 1, odd, (rows, 1)),
        "outer": applied(lambda x, y: torch.sigmoid(x) * y, (rows, 1), (1, columns)),
        "middle": applied(lambda x, y: x * y + x, (5, 7, 33), (5, 1, 33)),
        "one_element": applied(lambda x: x * 2 + 1, (1,)),
        "many": applied(lambda x: x * x, (3, 1 << 20)),
        "quotient": applied(lambda x, y: x / (y.abs() + 1), odd, odd),
        "extremes": applied(lambda x, y: torch.maximum(x, y) - torch.minimum(x, 0 * y), odd, odd),
        "clamped": applied(lambda x: x.clamp(-0.5, 0.5), odd),
        "chosen": applied(lambda x, y: torch.where(x > y, x, -y), odd, odd),
        "power": applied(lambda x: x**3, odd),
        "whole_numbers": applied(lambda i: i // 3 * 7 + i % 5, Index(odd, 1000)),
        "truth": applied(lambda x, y: (x > 0) & (y <= 0.5), odd, odd),
    }


def movement() -> dict[str, Part]:
    """Elements that change places, or types, and nothing else."""
    return {
        "transposed": applied(lambda x: x.mT.contiguous(), (131, 203)),
        "heads": applied(
            lambda x: x.unflatten(-1, (6, 32)).transpose(1, 2).contiguous(), (3, 35, 192)
        ),
        "reversed_axes": applied(lambda x: x.permute(3, 2, 1, 0).contiguous(), (3, 5, 17, 33)),
        "concat_rows": applied(lambda x, y: torch.cat((x, y)), (13, 35), (22, 35)),
        "concat_columns": applied(lambda x, y: torch.cat((x, y), -1), (13, 35), (13, 64)),
        "concat_16_bytes": applied(lambda x, y: torch.cat((x, y), 1), (2, 8, 64), (2, 40, 64)),
        "sliced": applied(lambda x: x[3:30:3, 5:-2], (37, 101)),
        "sliced_16_bytes": applied(lambda x: x[:, 64:192].contiguous(), (37, 256)),
        "halves": applied(lambda x: torch.cat(x.chunk(2, -1)[::-1], -1), (9, 250)),
        "flipped": applied(lambda x: x.flip(-1), (9, 251)),
        "padded": applied(lambda x: functional.pad(x, (3, 4, 1, 2), value=1.5), (9, 31)),
        "repeated": applied(lambda x: x[:, None].expand(-1, 4, -1).reshape(36, 35), (9, 35)),
        "to_float": applied(lambda x: x.float(), (37, 101)),
        "to_bf16": applied(lambda x: x.bfloat16(), (37, 101)),
        "to_half": applied(lambda x: x.half(), (37, 101)),
        "to_int": applied(lambda x: x.int(), (37, 101)),
        "from_int": applied(lambda i, x: x * i, Index((37, 101), 100), (37, 101)),
    }


def indices() -> dict[str, Part]:
    """Rows and elements that are looked up, and places that are found."""
    return {
        "embedding": Part(lambda: nn.Embedding(1000, 96), (Index((3, 35), 1000),)),
        "embedding_odd": Part(lambda: nn.Embedding(100, 35), (Index((61,), 100),)),
        "selected": applied(lambda x, i: x[:, i], (9, 50, 33), Index((70,), 50)),
        "taken_along": applied(lambda x, i: x.gather(1, i), (37, 101), Index((37, 12), 101)),
        "argmax_last": applied(lambda x: greatest(x, 1), (37, 50257)),
        "argmax_first": applied(lambda x: greatest(x, 0), (301, 35)),
        "rotary": Part(Rotary, ((2, 4, 9, 64),)),
        "rotary_pairs": applied(pairs_turned, (2, 4, 9, 64), (9, 32)),
    }
