"""Compute equal values of a state once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from dfcompiler.ir import Attr, Op, Program, State
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass

Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Lets readers of an equal value read the first one.

    ::

        %0 = exp @x                     %0 = exp @x
        %1 = exp @x            ──▶      %2 = mul %0, %0
        %2 = mul %0, %1

    Two operators are equal when kind, type, attributes, region and inputs are; a container counts
    as another one after each write to it. Writes to containers themselves stay.
    """

    name: ClassVar[str] = "eliminate-common-subexpressions"
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops <=",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        return map_states(program, _shared)


def _shared(state: State) -> State:
    first: dict[Key, str] = {}
    names: dict[str, str] = {}
    versions: dict[str, int] = {}
    ops: list[Op] = []
    for op in state.ops:
        renamed = op.renamed(names)
        if not op.result.startswith("%"):
            versions[op.result] = versions.get(op.result, 0) + 1
            ops.append(renamed)
            continue
        key = _key(renamed, versions)
        earlier = first.setdefault(key, op.result)
        if earlier == op.result:
            ops.append(renamed)
        else:
            names[op.result] = earlier
    return replace(state, ops=tuple(ops)) if names else state


def _key(op: Op, versions: dict[str, int]) -> Key:
    """Everything that decides an operator's value; names inside a region are its positions."""
    inputs = tuple((name, versions.get(name, 0)) for name in op.inputs)
    local = {inner.result: f"%{i}" for i, inner in enumerate(op.region)}
    region = tuple(_key(inner.renamed(local), {}) for inner in op.region)
    attrs = tuple((name, _exact(value)) for name, value in op.attrs.items())
    return op.kind, op.type, inputs, attrs, region


def _exact(value: Attr) -> object:
    """A key that tells 1 from 1.0 and 0.0 from -0.0, and finds NaN equal to itself."""
    match value:
        case float():
            return value.hex()
        case bool() | int():
            return type(value), value
        case tuple():
            return tuple(map(_exact, value))
    return value
