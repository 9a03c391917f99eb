"""Move the rows of a product's left operand apart where they would share sets of the L1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.analysis.cache_sets import row_pad
from dfcompiler.analysis.tiling import Tile
from dfcompiler.errors import UsageError
from dfcompiler.ir import Op, Program, State
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass
from dfcompiler.target import CpuTarget
from passes.rules.product_operands import operands

ROW_KERNELS = ("layer_norm", "rms_norm")


@dataclass(frozen=True)
class PadRows(Pass):
    """Gives a value that products read row by row some unused elements behind each row.

    ::

        %0: f32[S, 3072] = matmul %x, @u                 %0: f32[S, 3072; 0 1+48] = matmul %x, @u
        %1: f32[S, 768] = matmul %0, @d {tile = …}  ──▶  %1: f32[S, 768] = matmul %0, @d {tile = …}

    A register tile reads mr rows of A, and the next mr come meanwhile. Rows of a multiple of 4 KB
    lie in the same few sets of the L1, where they displace each other and the slice of B. The pad
    is the least with which the rows of two tiles find room beside B (`analysis/cache_sets.py`).

    Declines a value that anything else reads too: it would have to step over the gaps.

    Attributes:
        l1_bytes: first-level cache to pad for; 0: the target's.
    """

    target: CpuTarget | None = None
    l1_bytes: int = 0

    name: ClassVar[str] = "pad-rows"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu",)
    claims: ClassVar[tuple[str, ...]] = (
        "ops ==",
        "flops ==",
        "moved_bytes ==",
        "io_bound_bytes ==",
        "weight_bytes ==",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        if self.target is None:
            raise UsageError("pad-rows needs a target: rows share sets of its L1")
        l1_bytes = self.l1_bytes or self.target.l1_bytes

        def padded(state: State) -> State:
            pads = dict(_pads(state, l1_bytes, decline))
            if not pads:
                return state
            ops = (_with_pad(op, pads[op.result]) if op.result in pads else op for op in state.ops)
            return replace(state, ops=tuple(ops))

        return map_states(program, padded)


def _pads(state: State, l1_bytes: int, decline: Decline) -> Iterator[tuple[str, int]]:
    """The values to pad, each with the elements behind a row."""
    for op in state.ops:
        if op.result.startswith("@") or not _writes_rows(op) or op.type.layout.order:
            continue
        readers = [other for other in state.ops if op.result in other.inputs]
        products = [other for other in readers if _reads_rows(other, op.result)]
        pad = max((_pad(op, product, l1_bytes) for product in products), default=0)
        if not pad:
            continue
        others = [other for other in readers if other not in products]
        if others:
            decline(op, f"its rows share sets of the L1, but {others[0].result} reads it too")
        else:
            yield op.result, pad


def _writes_rows(op: Op) -> bool:
    """Whether the kernel of an operator writes rows with any distance between them."""
    return operands(op) is not None or op.kind in ROW_KERNELS or op.attr("kernel", "") == "row"


def _reads_rows(op: Op, name: str) -> bool:
    """Whether an operator is a product with a tile that reads `name` as A and in no other way."""
    found = operands(op) if "tile" in op.attrs else None
    return found is not None and found[0] == name and op.inputs.count(name) == 1


def _pad(op: Op, product: Op, l1_bytes: int) -> int:
    """Elements to leave between the rows that `product` reads of what `op` writes."""
    columns, width = op.type.shape[-1], op.type.dtype.bytes
    if not isinstance(columns, int):
        return 0
    return row_pad(columns, width, Tile(*product.attr("tile")), l1_bytes)


def _with_pad(op: Op, pad: int) -> Op:
    layout = op.type.layout.padded(op.type.rank, pad)
    return replace(op, type=replace(op.type, layout=layout))
