"""Plans of a matrix product on a GPU, and the operator's attributes that they stand in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dfcompiler.analysis.gpu_expansions import NATIVE, tiles_of
from dfcompiler.analysis.gpu_tiles import BlockTile
from dfcompiler.analysis.tiling import Tile
from dfcompiler.target import CudaTarget


@dataclass(frozen=True)
class Plan:
    """Which tile a product takes up to a number of rows.

    Attributes:
        most_rows: rows up to which it is taken; 0: any number.
        tile: the tile.
        parts: among how many blocks the sum over k of a tile is split.
    """

    most_rows: int
    tile: BlockTile
    parts: int

    @property
    def attribute(self) -> tuple[int, ...]:
        """The plan as a part of an operator's attribute: rows, BM, BN, BK, stages, parts."""
        return self.most_rows, *self.tile.shape, self.parts


def plans_from(
    attribute: Any, element_bytes: int, target: CudaTarget, expansion: str = NATIVE
) -> tuple[Plan, ...]:
    """The plans that an operator's attributes stand for.

    Args:
        attribute: its `tile`.
        element_bytes: size of an element of the product.
        target: the device.
        expansion: its `expansion`, of which there are tiles beside the native ones.

    Raises:
        ValueError: if the attribute has another form, or there is no kernel for a tile.
    """
    if not isinstance(attribute, tuple) or not all(isinstance(one, tuple) for one in attribute):
        raise ValueError("a tile on a GPU is a list of [rows, BM, BN, BK, stages, parts]")
    names = dict.fromkeys((NATIVE, expansion))
    known = {t.shape: t for name in names for t in tiles_of(name, element_bytes, target)}
    found: list[Plan] = []
    for most_rows, *shape, parts in attribute:
        if tuple(shape) not in known or parts < 1:
            there = ", ".join("×".join(map(str, one)) for one in known)
            raise ValueError(f"no kernel has the tile {shape} in {parts} parts; there are {there}")
        found.append(Plan(int(most_rows), known[tuple(shape)], int(parts)))
    ends = [plan.most_rows for plan in found]
    if not ends or ends[-1] != 0 or ends[:-1] != sorted({n for n in ends if n > 0}):
        raise ValueError(f"rows of tiles ascend, and the last is 0 for any number, not {ends}")
    return tuple(found)


def plan_for(plans: Sequence[Plan], rows: int) -> Plan:
    """The plan that a product of so many rows takes."""
    return next(plan for plan in plans if rows <= plan.most_rows or plan.most_rows == 0)


def expansion_of(plans: Sequence[Plan]) -> str:
    """The expansion whose tiles are among the plans: native where no other is."""
    return next((p.tile.expansion for p in plans if p.tile.expansion != NATIVE), NATIVE)


def loop_tile(attribute: Any, rows: int) -> Tile:
    """The blocking of a `tile` attribute of either target, as loops around a register tile.

    Args:
        attribute: `[mr, nr, kc, mc]`, or the plans of a GPU.
        rows: of the product, where the attribute depends on them.
    """
    if not isinstance(attribute[0], tuple):
        return Tile(*attribute)
    plan = next(one for one in attribute if rows <= one[0] or one[0] == 0)
    _, block_rows, columns, depth, *_ = plan
    return Tile(block_rows, columns, depth, block_rows)
