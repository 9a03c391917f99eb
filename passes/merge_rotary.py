"""Make one rotation of the rotations of neighbouring heads by the same angles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from dfcompiler.ir import Attrs, Op, Program
from dfcompiler.ir.dims import Shape
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class MergeRotary(Pass):
    """Rotates the heads of queries and keys at once where one product gives both.

    ::

        %q  = slice %p [.., 0:H·D]       as H heads          %h  = slice %p [.., 0:(H + G)·D]
        %k  = slice %p [.., H·D:]        as G heads          %r  = rotary (%h as H + G heads), c, s
        %q2 = rotary (%q as heads), c, s             ──▶     %q2 = slice %r [:, 0:H]
        %k2 = rotary (%k as heads), c, s                     %k2 = slice %r [:, H:]

    The angles are read once, and there is one kernel in the place of two. What was sliced before
    is sliced behind: both are views. *As heads* is a reshape and, where there is one, the
    transpose that puts heads in front of tokens; of one token the reshape alone does that.

    Skips a rotation whose result is a container, heads that are not neighbours in `%p`, and angles
    that differ between heads.
    """

    name: ClassVar[str] = "merge-rotary"
    claims: ClassVar[tuple[str, ...]] = ("flops ==", "moved_bytes <=", "value_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(state: StateRewriter) -> None:
            groups: dict[tuple[object, ...], list[_Rotation]] = defaultdict(list)
            for op in state.state.ops:
                found = _rotation(state, op) if op.kind == "rotary" else None
                if found is not None:
                    groups[found.key].append(found)
            for members in groups.values():
                if len(members) > 1:
                    _merge(state, members, decline)

        return rewrite_states(program, rule)


@dataclass(frozen=True)
class _Rotation:
    """A rotation of heads that are a part of the last axis of a value.

    Attributes:
        op: the rotation.
        order: the transpose in front of it, if any.
        heads: the reshape that splits the last axis into heads.
        part: the slice.
        axis: where the reshape puts heads; between them and their elements are axes of 1 alone.
    """

    op: Op
    order: Op | None
    heads: Op
    part: Op
    axis: int

    @property
    def start(self) -> int:
        """Where the heads begin along the last axis of the value."""
        return int(self.part.attr("starts")[-1])

    @property
    def stop(self) -> int:
        """Where they end."""
        return self.start + int(self.part.type.shape[-1])

    @property
    def count(self) -> int:
        """How many they are."""
        return int(self.heads.type.shape[self.axis])

    @property
    def key(self) -> tuple[object, ...]:
        """What rotations that are merged have in common."""
        order = self.order.attr("perm") if self.order else None
        width = self.heads.type.shape[-1]
        return (*self.part.inputs, *self.op.inputs[1:], self.op.attrs, order, self.axis, width)


def _rotation(state: StateRewriter, op: Op) -> _Rotation | None:
    inner = state.producer(op.inputs[0])
    order = inner if inner is not None and inner.kind == "transpose" else None
    heads = state.producer(order.inputs[0]) if order is not None else inner
    if heads is None or heads.kind != "reshape":
        return None
    part = state.producer(heads.inputs[0])
    if part is None or part.kind != "slice" or not part.inputs[0].startswith("%"):
        return None
    axis = _head_axis_of(heads.type.shape, part.type.shape)
    if axis is None or part.type.shape[:-1] != state.type_of(part.inputs[0]).shape[:-1]:
        return None
    if not isinstance(part.attr("starts")[-1], int) or part.attr("steps", ()):
        return None
    if order is not None and order.attr("perm")[-1] != heads.type.rank - 1:
        return None
    found = _Rotation(op, order, heads, part, axis)
    behind = op.type.rank - _head_axis(found)
    angles = [state.type_of(name).shape for name in op.inputs[1:]]
    own = any(len(shape) >= behind and shape[-behind] != 1 for shape in angles)
    return None if own else found  # heads with angles of their own are not rotated at once


def _head_axis_of(heads: Shape, part: Shape) -> int | None:
    """The axis of `heads` that holds what the last axis of `part` has but for the last extent."""
    *outer, width = heads
    whole = part[-1]
    if not isinstance(width, int) or not isinstance(whole, int) or not width or whole % width:
        return None
    for axis in range(len(outer) - 1, -1, -1):
        before = tuple(dim for dim in outer[:axis] if dim != 1)
        if outer[axis] == whole // width and before == tuple(d for d in part[:-1] if d != 1):
            return axis
        if outer[axis] != 1:
            return None
    return None


def _merge(state: StateRewriter, members: Sequence[_Rotation], decline: Decline) -> None:
    """Puts the one rotation at the first of its members, and a slice of it at each."""
    first, ordered = members[0], sorted(members, key=lambda member: member.start)
    for before, after in pairwise(ordered):
        if before.stop != after.start:
            between = f"{before.stop} and {after.start} of {first.part.inputs[0]}"
            decline(after.op, f"its heads are no neighbours of others: between {between}")
            return
    if any(not member.op.result.startswith("%") for member in members):
        decline(first.op, "the result of one of the rotations is a container")
        return
    rotated = _rotated(state, first, ordered)
    axis = _head_axis(first)
    kernels, start = {first.op.result: rotated}, 0
    for member in ordered:
        starts = tuple(start if i == axis else 0 for i in range(member.op.type.rank))
        part = replace(
            member.op, kind="slice", inputs=(rotated[-1].result,), attrs=Attrs({"starts": starts})
        )
        state.replace(member.op, (*kernels.get(member.op.result, ()), part))
        start += member.count


def _head_axis(member: _Rotation) -> int:
    perm = member.order.attr("perm") if member.order else range(member.heads.type.rank)
    return int(perm.index(member.axis))


def _rotated(state: StateRewriter, first: _Rotation, ordered: Sequence[_Rotation]) -> list[Op]:
    """The heads of all members as one value, and their rotation."""
    count = sum(member.count for member in ordered)
    heads = first.heads.type.shape
    starts = (*first.part.attr("starts")[:-1], ordered[0].start)
    shapes = {
        "slice": (*first.part.type.shape[:-1], count * int(heads[-1])),
        "reshape": (*heads[: first.axis], count, *heads[first.axis + 1 :]),
    }
    if first.order is not None:
        shapes["transpose"] = tuple(shapes["reshape"][i] for i in first.order.attr("perm"))
    chain = [first.part, first.heads, *([first.order] if first.order else []), first.op]
    found: list[Op] = []
    for op in chain:
        inputs = (found[-1].result, *op.inputs[1:]) if found else op.inputs
        shape = shapes.get(op.kind, found[-1].type.shape if found else ())
        attrs = Attrs({**op.attrs, "starts": starts}) if op is first.part else op.attrs
        found.append(
            replace(
                op,
                result=state.fresh(),
                inputs=inputs,
                type=op.type.with_shape(shape),
                attrs=attrs,
            )
        )
    return found
