"""Bring equal computations into equal form."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import Program
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass
from passes.rules import algebra, broadcast, indices, movement, products, ranges
from passes.rules.sweep import Rule, Sweep


def _rules() -> dict[str, tuple[Rule, ...]]:
    table: dict[str, tuple[Rule, ...]] = defaultdict(tuple)
    families = (products.ATTRIBUTES, products.RULES, indices.RULES, ranges.RULES)
    for family in (*families, broadcast.RULES, movement.RULES, algebra.RULES):
        for kind, rules in family.items():
            table[kind] += rules
    return dict(table)


RULES = _rules()


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Applies local rules to every operator until none fits.

    ::

        %0: f32[B, S, 4] = reshape @x                   %0: f32[M, 4] = add @x, @w
        %1: f32[4] = expand @w                          %1: f32[M, 4] = relu %0
        %2: f32[B, S, 4] = add %1, %0           ──▶     @y: f32[B, S, 4] = reshape %1
        %3: f32[] = constant {value = 0.0}
        @y: f32[B, S, 4] = max %2, %3

    Rules: algebraic identities; constants and weights second; arithmetic on constants, extents and
    index ranges, and comparisons that those decide; no-op data movement; reshapes and transposes
    after element-wise operators; broadcasts inside of them. Floating-point results keep their
    rounding, up to the sign of zero. Not done: anything that needs more than the producers of an
    operator's inputs, such as recognizing a normalization.
    """

    name: ClassVar[str] = "canonicalize"
    claims: ClassVar[tuple[str, ...]] = ("flops <=", "weight_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        return map_states(program, lambda state: Sweep(program, state, RULES).run())
