"""Make one product of the products that read the same activation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import ClassVar

import numpy as np

from dfcompiler.ir import Attrs, Op, Program, Role, State
from dfcompiler.ir.rewrite import StateRewriter, drop_unused_weights, rewrite_states, with_weights
from dfcompiler.pipeline import Decline, Pass
from passes.fuse_epilogue import fused


@dataclass(frozen=True)
class MergeProducts(Pass):
    """Multiplies an activation by the weights of several products at once.

    ::

        weight @q: f32[K, N]                    weight @q.q_k: f32[K, N + M]
        weight @k: f32[K, M]                    %3: f32[S, N + M] = matmul %x, @q.q_k
        %0: f32[S, N] = matmul %x, @q    ──▶    %0: f32[S, N] = slice %3 {starts = [0, 0]}
        %1: f32[S, M] = matmul %x, @k           %1: f32[S, M] = slice %3 {starts = [0, N]}

    The activation is read once, and the threads meet once. The results are slices along the last
    axis, which are views. Products merge with biases of their own, or without any. Products of
    several layers that share their weights share the merged ones too.

    Skips products whose epilogue does more than add a bias, since what follows a slice cannot be
    in the product's epilogue; results that are containers; and weights that something else reads,
    which would be stored twice.
    """

    name: ClassVar[str] = "merge-products"
    claims: ClassVar[tuple[str, ...]] = ("flops ==", "io_bound_bytes ==", "weight_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        groups = {state.name: _groups(program, state, decline) for state in program.states()}
        foreign = _read_elsewhere(program, [g for found in groups.values() for g in found])
        weights = _Concatenated(program)

        def rule(rewriter: StateRewriter) -> None:
            for group in groups[rewriter.state.name]:
                shared = [m.weight for m in group.members if m.weight in foreign]
                if shared:
                    reason = f"{shared[0]} is also read elsewhere and would be stored twice"
                    decline(group.members[0].op, reason)
                    continue
                _merge(rewriter, group, weights)

        merged = rewrite_states(program, rule)
        if merged is program:
            return program
        return drop_unused_weights(with_weights(merged, weights.data))


@dataclass(frozen=True)
class _Member:
    """A product that may join others: ``activation · weight [+ bias]``."""

    op: Op
    product: Op
    weight: str
    bias: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What members of one group have in common."""
        return (self.product.inputs[0], bool(self.bias), self.op.type.dtype)


@dataclass(frozen=True)
class _Group:
    """Products of one activation, in the order of the program."""

    members: tuple[_Member, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(member.weight for member in self.members)

    @property
    def biases(self) -> tuple[str, ...]:
        return tuple(member.bias for member in self.members if member.bias)


def _groups(program: Program, state: State, decline: Decline) -> list[_Group]:
    """The products of a state that could be merged, decided without regard to other states."""
    roles = {f"@{c.name}": c.role for c in program.containers}
    stored = {f"@{c.name}": c.type.rank for c in program.weights if c.name in program.data}
    readers: dict[str, list[_Member]] = defaultdict(list)
    for op in state.ops:
        member = _member(op, stored)
        if member is not None:
            readers[member.product.inputs[0]].append(member)
    found: list[_Group] = []
    for activation, members in readers.items():
        if len(members) == 1:
            continue
        joined: dict[tuple[object, ...], list[_Member]] = defaultdict(list)
        for member in members:
            reason = _why_not(member, roles.get(activation))
            if reason:
                decline(member.op, reason)
            else:
                joined[member.key].append(member)
        found += [_Group(tuple(group)) for group in joined.values() if len(group) > 1]
    return found


def _member(op: Op, stored: Mapping[str, int]) -> _Member | None:
    """The product with a weight that an operator is or begins with; `stored` has their ranks."""
    linear = op.kind == "fused" and op.attr("kernel") == "linear"
    product, *rest = op.region if linear else (op,)
    if product.kind != "matmul" or stored.get(product.inputs[1]) != 2:
        return None
    bias = ""
    if len(rest) == 1 and rest[0].kind == "add":
        other = next(name for name in rest[0].inputs if name != product.result)
        bias = other if stored.get(other) == 1 else ""
    return _Member(op, product, product.inputs[1], bias)


def _why_not(member: _Member, activation: Role | None) -> str:
    if activation not in (None, Role.INPUT, Role.WEIGHT):
        return f"{member.product.inputs[0]} may be written between the products"
    if member.op.region and not member.bias:
        rest = " and ".join(inner.kind for inner in member.op.region[1:])
        return f"{rest} in its epilogue would need a sweep of its own"
    if member.op.result.startswith("@"):
        return "its result is a container"
    return ""


def _read_elsewhere(program: Program, groups: list[_Group]) -> set[str]:
    """Weights and biases that are read by other operators than merged products of one kind."""
    merged: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    reads = Counter(name for op in program.ops() for name in op.inputs if name.startswith("@"))
    for group in groups:
        for name in (*group.weights, *group.biases):
            merged[name].add(group.weights)
            reads[name] -= 1
    return {name for name, kinds in merged.items() if reads[name] or len(kinds) > 1}


def _merge(rewriter: StateRewriter, group: _Group, weights: _Concatenated) -> None:
    """Puts the merged product at its first member, and slices of it at each."""
    first = group.members[0]
    columns = [member.op.type.shape[-1] for member in group.members]
    shape = (*first.op.type.shape[:-1], sum(columns))
    whole = replace(first.op.type, shape=shape)
    product = Op(
        rewriter.fresh(),
        whole,
        "matmul",
        (first.product.inputs[0], weights.of(group.weights)),
        source=first.product.source,
    )
    kernel = product
    if group.biases:
        inputs = (product.result, weights.of(group.biases))
        total = Op(rewriter.fresh(), whole, "add", inputs, source=first.op.region[-1].source)
        kernel = fused([product, total], "linear")
    starts = [0, *accumulate(columns)]
    for member, start in zip(group.members, starts, strict=False):
        at = (0,) * (len(shape) - 1)
        part = replace(
            member.op,
            kind="slice",
            inputs=(kernel.result,),
            attrs=Attrs({"starts": (*at, start)}),
            region=(),
        )
        rewriter.replace(member.op, [kernel, part] if member is first else [part])


@dataclass
class _Concatenated:
    """Weights side by side along the last axis, each combination stored once."""

    program: Program
    data: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = {container.name for container in self.program.containers}

    def of(self, names: tuple[str, ...]) -> str:
        """The container that holds the weights called `names`."""
        if names not in self.names:
            plain = [name.removeprefix("@") for name in names]
            name = next(n for n in _candidates(plain) if n not in self.taken)
            self.taken.add(name)
            self.data[name] = _side_by_side([self.program.data[n] for n in plain])
            self.names[names] = f"@{name}"
        return self.names[names]


def _candidates(names: list[str]) -> Iterator[str]:
    """The first name and what is different in the others."""
    base = f"{names[0]}.merged"
    yield base
    number = 1
    while True:
        number += 1
        yield f"{base}.{number}"


def _side_by_side(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays concatenated along their last axis, in the order that they have in memory.

    Weights of torch are transposed views; concatenated as rows, they are copied in long runs.
    """
    if all(array.ndim == 2 and array.T.flags.c_contiguous for array in arrays):
        return np.concatenate([array.T for array in arrays]).T
    return np.concatenate(arrays, axis=-1)
