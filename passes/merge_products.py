"""Make one product of the products that read the same activation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Program, Role, State, TensorType
from dfcompiler.ir.rewrite import StateRewriter, drop_unused_weights, rewrite_states, with_weights
from dfcompiler.pipeline import Decline, Pass, default_probes
from dfcompiler.target import Target
from passes.rules.merged_product import Member, merged_ops, product_of
from passes.rules.prices import Prices, prices_on, show_seconds
from passes.rules.side_by_side import ConcatenatedWeights


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

    A product whose epilogue does more than add a bias joins where the time model says that it
    pays: what follows a slice cannot be in an epilogue and takes a sweep of its own. Skips results
    that are containers, and weights that something else reads, which would be stored twice.
    """

    target: Target | None = None

    name: ClassVar[str] = "merge-products"
    # Bytes of weights grow by biases that several products share (a merged one holds each of them
    # for itself); bytes moved and values grow where an epilogue becomes a sweep that pays.
    claims: ClassVar[tuple[str, ...]] = ("flops ==", "io_bound_bytes ==")

    def run(self, program: Program, decline: Decline) -> Program:
        if self.target is None:
            raise UsageError("merge-products needs a target: merging must pay on it")
        prices = prices_on(self.target, default_probes(program)[-1])
        groups = {s.name: _groups(program, s, prices, decline) for s in program.states()}
        foreign = _read_elsewhere(program, [g for found in groups.values() for g in found])
        weights = ConcatenatedWeights(program)

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
class _Group:
    """Products of one activation, in the order of the program."""

    members: tuple[Member, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        return tuple(member.weight for member in self.members)

    @property
    def biases(self) -> tuple[str, ...]:
        return tuple(member.offset for member in self.members if member.bias)


def _groups(program: Program, state: State, prices: Prices, decline: Decline) -> list[_Group]:
    """The products of a state that pay to be merged, decided without regard to other states."""
    roles = {f"@{c.name}": c.role for c in program.containers}
    stored = {f"@{c.name}": c.type.rank for c in program.weights if c.name in program.data}
    readers: dict[tuple[object, ...], list[Member]] = defaultdict(list)
    for op in state.ops:
        member = product_of(op, stored)
        if member is not None:
            readers[member.key].append(member)
    types = {f"@{c.name}": c.type for c in program.containers}
    types |= {op.result: op.type for op in state.ops if op.result.startswith("%")}
    found: list[_Group] = []
    for members in readers.values():
        if len(members) == 1:
            continue
        role = roles.get(members[0].product.inputs[0])
        able: list[Member] = []
        for member in members:
            reason = _why_not(member, role)
            if reason:
                decline(member.op, reason)
            else:
                able.append(member)
        joined = _paying(able, types, prices, decline)
        if len(joined) > 1:
            found.append(_Group(tuple(joined)))
    return found


def _why_not(member: Member, activation: Role | None) -> str:
    if activation not in (None, Role.INPUT, Role.WEIGHT):
        return f"{member.product.inputs[0]} may be written between the products"
    return "its result is a container" if member.op.result.startswith("@") else ""


def _paying(
    members: list[Member], types: Mapping[str, TensorType], prices: Prices, decline: Decline
) -> list[Member]:
    """Those that are merged: all, or the ones without stages where that is predicted faster."""
    plain = [member for member in members if not member.stages]
    staged = [member for member in members if member.stages]
    if not staged or len(members) < 2:
        return members

    def seconds(merged: list[Member], alone: list[Member]) -> float:
        if len(merged) < 2:
            return prices.seconds([member.op for member in merged + alone], types)
        depth = types[merged[0].weight].shape[0]
        columns = sum(member.op.type.shape[-1] for member in merged)
        weight = TensorType(types[merged[0].weight].dtype, (depth, columns))
        known = {**types, "@merged": weight, "@offset": weight.with_shape((columns,))}
        kernels = merged_ops(merged, ("%product", "%merged"), "@merged", "@offset")
        ops = [op for one in kernels for op in one]
        return prices.seconds([*ops, *(member.op for member in alone)], known)

    apart, together = seconds(plain, staged), seconds(members, [])
    if together < apart:
        return members
    for member in staged:
        kinds = " and ".join(stage.kind for stage in member.stages)
        decline(
            member.op,
            f"merged, {kinds} would be a sweep of its own: predicted {show_seconds(together)} "
            f"against {show_seconds(apart)}",
        )
    return plain


def _read_elsewhere(program: Program, groups: list[_Group]) -> set[str]:
    """Weights and biases that are read by other operators than merged products of one kind."""
    merged: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    reads = Counter(name for op in program.ops() for name in op.inputs if name.startswith("@"))
    for group in groups:
        for name in (*group.weights, *group.biases):
            merged[name].add(group.weights)
            reads[name] -= 1
    return {name for name, kinds in merged.items() if reads[name] or len(kinds) > 1}


def _merge(rewriter: StateRewriter, group: _Group, weights: ConcatenatedWeights) -> None:
    """Puts the merged product at its first member, and slices of it at each."""
    names = (rewriter.fresh(), rewriter.fresh())
    weight = weights.of(group.weights)
    offset = weights.of(group.biases) if group.biases else ""
    parts = merged_ops(group.members, names, weight, offset, rewriter.fresh)
    for member, ops in zip(group.members, parts, strict=True):
        rewriter.replace(member.op, ops)
