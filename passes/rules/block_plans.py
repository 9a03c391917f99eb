"""Plans of the products of a program for a GPU: which expansion, which tile, how many parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dfcompiler.analysis.gpu_expansions import (
    CHOICES,
    LEAST_ROWS,
    LIBRARIES,
    NATIVE,
    complete,
    tiles_of,
    trusted_tiles,
)
from dfcompiler.analysis.gpu_plans import Plan, expansion_of
from dfcompiler.analysis.gpu_products import extents_of
from dfcompiler.analysis.gpu_tiles import TILES, VECTOR_ROWS, BlockTile
from dfcompiler.analysis.gpu_tiling import RUNGS, asked_plans, held_tiles, plans_of
from dfcompiler.analysis.gpu_time import BlockProduct
from dfcompiler.ir import Op, Program
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.program import Attr
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.ir.types import TensorType
from dfcompiler.pipeline import Bindings, Decline
from dfcompiler.target import CudaTarget
from passes.rules.product_operands import operands


def with_plans(
    program: Program,
    target: CudaTarget,
    probes: tuple[Bindings, ...],
    expansion: str,
    decline: Decline,
) -> Program:
    """The program with the plans of all its products that have none, which share kernels.

    Args:
        program: the program.
        target: the device.
        probes: sample sizes.
        expansion: what all products shall take; empty: the least modelled time decides.
        decline: is told why a product has no plan, or not the one that the model prefers.
    """
    families = families_of(program, probes)
    tiled = [family for family in families.values() if isinstance(family, Family)]
    # An expansion without tiles of its own is of the whole program: the plans are the native ones.
    chooser = Chooser(tiled, target, expansion if expansion in CHOICES else expansion and NATIVE)
    wished = Chooser(tiled, complete(target), chooser.asked)

    def rule(state: StateRewriter) -> None:
        for op in state.state.ops:
            family = families.get(id(op), "")
            plans = chooser.plans(family) if isinstance(family, Family) else None
            if isinstance(family, Family) and plans:
                if reason := missed(family, plans, wished):
                    decline(op, reason)
                state.replace(op, (op.with_attrs(**attributes_of(plans)),))
            elif family:
                why = family if isinstance(family, str) else "no tile fits a multiprocessor"
                decline(op, why)

    return rewrite_states(program, rule)


def families_of(program: Program, probes: tuple[Bindings, ...]) -> dict[int, Family | str]:
    """The products of each operator without a tile by its `id`, or why it gets none."""
    found: dict[int, Family | str] = {}

    def collect(state: StateRewriter) -> None:
        for op in state.state.ops:
            if operands(op) is not None and "tile" not in op.attrs:
                found[id(op)] = family_of(op, [state.type_of(n) for n in op.inputs], probes)

    rewrite_states(program, collect)
    return found


def attributes_of(plans: Sequence[Plan]) -> dict[str, Attr]:
    """Plans as an operator's attributes."""
    attributes: dict[str, Attr] = {"tile": tuple(plan.attribute for plan in plans)}
    if expansion_of(plans) != NATIVE:
        attributes["expansion"] = expansion_of(plans)
    return attributes


@dataclass(frozen=True)
class Family:
    """The products of an operator, one for each number of rows that is looked at.

    Attributes:
        product: with the largest number of rows.
        ends: numbers of rows in ascending order, each the end of a range.
    """

    product: BlockProduct
    ends: tuple[int, ...]

    @property
    def products(self) -> list[BlockProduct]:
        """A product for each number of rows."""
        return [replace(self.product, rows=rows) for rows in self.ends]


def family_of(op: Op, types: Sequence[TensorType], probes: tuple[Bindings, ...]) -> Family | str:
    """The products of an operator, or why it has no tile.

    Args:
        op: the product, or the fused region that starts with it.
        types: of its inputs, in order.
        probes: sample sizes, of which the last counts where matrices are many.
    """
    found = extents_of(op, types)
    if isinstance(found, str):
        return found
    try:
        many = max(1, evaluate(found.batch, probes[-1]))
    except KeyError as error:
        return f"the size {error.args[0]} has no sample"
    ends = (max(1, found.rows),) if isinstance(found.rows, int) else RUNGS
    return Family(found.bound(many, ends[-1]), ends)


class Chooser:
    """Plans for the products of one program, whose kernels are few together.

    Args:
        families: the program's products.
        target: the device.
        asked: the expansion that all products shall take; empty: the least modelled time decides.
    """

    def __init__(self, families: Sequence[Family], target: CudaTarget, asked: str = "") -> None:
        self.target = target
        self.asked = asked
        products = [product for family in families for product in family.products]
        self.more: dict[int, tuple[BlockTile, ...]] = {}
        for size in {product.element_bytes for product in products}:
            there = tiles_of(asked, size, target) if asked else trusted_tiles(size, target)
            others = [tile for tile in there if tile.expansion != NATIVE]
            least = LEAST_ROWS if asked else VECTOR_ROWS + 1
            same = [p for p in products if p.element_bytes == size and p.rows >= least]
            self.more[size] = held_tiles(same, others, target, () if asked else TILES[size])

    def plans(self, family: Family) -> tuple[Plan, ...] | None:
        """The plans of a product; None where no tile fits a multiprocessor."""
        size = family.product.element_bytes
        more = self.more[size]
        if self.asked and more:
            return asked_plans(family.product, family.ends, self.target, more)
        return plans_of(family.product, family.ends, self.target, (*TILES[size], *more))


def missed(family: Family, plans: Sequence[Plan], wished: Chooser) -> str:
    """Why the expansion that the model prefers was not taken; empty where it was."""
    found = expansion_of(wished.plans(family) or ())
    if found == expansion_of(plans):
        return ""
    return (
        f"the model prefers {found}, but the headers of {LIBRARIES[found]} are not installed: "
        f"the {expansion_of(plans)} kernel is taken"
    )
