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
from dfcompiler.target import CudaTarget, Target
from passes.rules.block_plans import with_plans
from passes.rules.product_operands import operands


@dataclass(frozen=True)
class TileForIo(Pass):
    """Gives every product with a packed weight the tile that its kernel works in.

    ::

        weight @w: f32[768, 3072; 1/64 0 1%64]
        %0 = matmul %x, @w     ──▶     %0 = matmul %x, @w {tile = [6, 64, 128, 258]}

                  nr = 64
               ┌──────────┐
               │ B: kc×nr │ kc = 128     The slice of B stays in L1 while every tile of mr rows
        A      ├──────────┤              of the block passes it; the block of A and the sums of
       ┌────┐  │ mr × nr  │ in registers its tiles stay in L2 until k is done. The next block of
       │ mc │  │ …        │              mc rows reads the panel of B again.
       └────┘  └──────────┘

    On a CPU the register tile is the kernel's for this instruction set, and nr the width of the
    packed panels; kc and mc come from an integer search (`analysis/tiling.py`) over the caches of
    the target and the program's sample sizes. mc is an upper bound: at run time rows are split
    evenly.

    On a GPU the tile is one of those that there are kernels for, with k split among blocks, in the
    least modelled time (`analysis/gpu_tiling.py`); rows that vary take more than one::

        %0 = matmul %x, @w {tile = [[1024, 64, 64, 32, 5, 1], [0, 128, 128, 32, 4, 1]]}

    up to 1024 rows: tiles of 64 × 64, k in 5 stages of 32, in 1 part; more: tiles of 128 × 128.
    The kernel may be another than the native one, for the rows whose tile is not a native one::

        %0 = matmul %x, @w {expansion = "cutlass", tile = [[0, 128, 256, 64, 4, 1]]}

    Which ones it may be is in `analysis/gpu_expansions.py`. Where the model would take one that is
    not installed, the pass says so.

    Declines, on a CPU, a right operand that is not packed; on a GPU, columns or a depth that vary
    or are not copied 16 bytes at a time; on both, a product without a sample of its sizes, such as
    the trip of a loop.

    Attributes:
        l1_bytes: first-level cache, or shared memory of a block, to choose for; 0: the target's.
        l2_bytes: second-level cache to choose for; 0: the target's.
        cores: cores, or multiprocessors, to share the tasks among; 0: the target's.
        expansion: on a GPU, what all products that it serves take; empty: the model chooses.
    """

    target: Target | None = None
    l1_bytes: int = 0
    l2_bytes: int = 0
    cores: int = 0
    expansion: str = ""

    name: ClassVar[str] = "tile-for-io"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
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
        if isinstance(target, CudaTarget):
            return with_plans(program, target, probes, self.expansion, decline)

        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                names = operands(op)
                if names is None or "tile" in op.attrs:
                    continue
                a, b = map(state.type_of, names)
                product = product_of(op, a, b, probes)
                tile = product if isinstance(product, str) else tile_on(target, product)
                if isinstance(tile, Tile):
                    state.replace(op, (op.with_attrs(tile=tile.attribute),))
                else:
                    decline(op, tile or "L1 holds no slice of B")

        return rewrite_states(program, rule)

    def machine(self, target: Target) -> Target:
        """The target with the memories and cores that the options name."""
        l2_bytes = self.l2_bytes or target.l2_bytes
        if isinstance(target, CudaTarget):
            return replace(
                target,
                shared_bytes=self.l1_bytes or target.shared_bytes,
                l2_bytes=l2_bytes,
                multiprocessors=self.cores or target.multiprocessors,
            )
        return replace(
            target,
            l1_bytes=self.l1_bytes or target.l1_bytes,
            l2_bytes=l2_bytes,
            cores=self.cores or target.cores,
        )


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
