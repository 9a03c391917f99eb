"""Other plans for the products of a program on a GPU: those that were measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from dfcompiler.ir import Attrs, Op, Program
from dfcompiler.ir.program import Attr
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.ir.types import TensorType
from dfcompiler.pipeline import Bindings
from passes.rules.block_plans import Family, family_of
from passes.rules.product_operands import operands

Choose: TypeAlias = Callable[[Op, Sequence[TensorType], Family], "Mapping[str, Attr] | None"]
"""The attributes that a product gets, by its operator, the types it reads and its extents."""


def with_other_plans(program: Program, probes: tuple[Bindings, ...], choose: Choose) -> Program:
    """The program with the attributes that `choose` gives its tiled products; None keeps them."""

    def rule(state: StateRewriter) -> None:
        for op in state.state.ops:
            if operands(op) is None or "tile" not in op.attrs:
                continue
            types = [state.type_of(name) for name in op.inputs]
            family = family_of(op, types, probes)
            found = None if isinstance(family, str) else choose(op, types, family)
            if found is not None:
                kept = {k: v for k, v in op.attrs.items() if k not in ("tile", "expansion")}
                state.replace(op, (replace(op, attrs=Attrs({**kept, **found, "tuned": True})),))

    return rewrite_states(program, rule)
