"""Choose the tiles of matrix products by the words that they move between memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from dfcompiler.analysis.tiling import Product, Tile, tile_on
from dfcompiler.errors import UsageError
from dfcompiler.ir import Op, Program
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.pipeline import Bindings, Decline, Pass, default_probes
from dfcompiler.target import CpuTarget


@dataclass(frozen=True)
class TileForIo(Pass):
    """Gives every product with a packed weight the tile that its kernel works in.

    ::

        weight @w: f32[768, 3072; 1/64 0 1%64]
        %0 = matmul %x, @w     ──▶     %0 = matmul %x, @w {tile = [6, 64, 128, 516]}

                  nr = 64
               ┌──────────┐
               │ B: kc×nr │ kc = 128     The slice of B stays in L1 while every tile of mr rows
        A      ├──────────┤              of the block passes it; the block of A and the sums of
       ┌────┐  │ mr × nr  │ in registers its tiles stay in L2 until k is done. The next block of
       │ mc │  │ …        │              mc rows reads the panel of B again.
       └────┘  └──────────┘

    The register tile is the kernel's for this instruction set, and nr the width of the packed
    panels; kc and mc come from an integer search (`analysis/tiling.py`) over the caches of the
    target and the program's sample sizes. mc is an upper bound: at run time rows are split evenly.

    Declines a right operand that is not packed and a product without a sample of its sizes, such
    as the trip of a loop.

    Attributes:
        l1_bytes: first-level cache to choose for; 0: the target's.
        l2_bytes: second-level cache to choose for; 0: the target's.
        cores: cores to share the tasks among; 0: the target's.
    """

    target: CpuTarget | None = None
    l1_bytes: int = 0
    l2_bytes: int = 0
    cores: int = 0

    name: ClassVar[str] = "tile-for-io"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu",)
    # Predicted time decides, which is not the bytes of one level of memory alone.
    claims: ClassVar[tuple[str, ...]] = (
        "ops ==",
        "flops ==",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes ==",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        if self.target is None:
            raise UsageError("tile-for-io needs a target: tiles are as large as its caches")
        target, probes = self.machine(self.target), default_probes(program)

        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                names = operands(op)
                if names is None or "tile" in op.attrs:
                    continue
                a, b = map(state.type_of, names)
                product = product_of(op, a, b, probes)
                tile = None if isinstance(product, str) else tile_on(target, product)
                if tile is not None:
                    state.replace(op, (op.with_attrs(tile=tile.attribute),))
                else:
                    decline(op, product if isinstance(product, str) else "L1 holds no slice of B")

        return rewrite_states(program, rule)

    def machine(self, target: CpuTarget) -> CpuTarget:
        """The target with the caches and cores that the options name."""
        return replace(
            target,
            l1_bytes=self.l1_bytes or target.l1_bytes,
            l2_bytes=self.l2_bytes or target.l2_bytes,
            cores=self.cores or target.cores,
        )


def operands(op: Op) -> tuple[str, str] | None:
    """The names of A and B of a product by itself or in a fused region; None for anything else."""
    if op.kind == "matmul":
        return op.inputs[0], op.inputs[1]
    if op.kind != "fused" or op.attr("kernel", "") != "linear":
        return None
    codes = {inner.result: inner.inputs[0] for inner in op.region if inner.kind == "dequantize"}
    a, b = next(inner for inner in op.region if inner.kind == "matmul").inputs
    return a, codes.get(b, b)


def product_of(op: Op, a: TensorType, b: TensorType, probes: tuple[Bindings, ...]) -> Product | str:
    """The products that `op` computes at the probes, or why it has no tile."""
    if not b.layout.is_tiled:
        return "its right operand is not packed: the panels are copied while running"
    if op.type.dtype is not DType.F32:
        return f"the tile is one of floats, the result is {op.type.dtype.value}"
    depth, columns = b.shape[-2:]
    if not isinstance(depth, int) or not isinstance(columns, int):
        return "the extents of its weight are not known"
    try:
        rows = {prod(evaluate(dim, probe) for dim in a.shape[:-1]) for probe in probes}
    except KeyError as error:
        return f"the size {error.args[0]} has no sample"
    return Product(tuple(sorted(rows)), columns, depth)


def products(program: Program, probes: Sequence[Bindings]) -> list[Product]:
    """The products of the operators that have a tile, in program order."""
    found: list[Product] = []
    _each_tiled(program, probes, lambda op, product: found.append(product))
    return found


def with_tiles(
    program: Program, probes: Sequence[Bindings], tiles: Mapping[Product, Tile]
) -> Program:
    """The program with other tiles for some products."""
    return _each_tiled(program, probes, lambda op, product: tiles.get(product))


def _each_tiled(
    program: Program, probes: Sequence[Bindings], choose: Callable[[Op, Product], Tile | None]
) -> Program:
    """The program with the tiles that `choose` gives; None keeps the one that is there."""

    def rule(state: StateRewriter) -> None:
        for op in state.state.ops:
            names = operands(op) if "tile" in op.attrs else None
            if names is None:
                continue
            a, b = map(state.type_of, names)
            product = product_of(op, a, b, tuple(probes))
            tile = None if isinstance(product, str) else choose(op, product)
            if tile is not None and tile.attribute != op.attrs["tile"]:
                state.replace(op, (op.with_attrs(tile=tile.attribute),))

    return rewrite_states(program, rule)
