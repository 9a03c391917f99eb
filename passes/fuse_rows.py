"""Compute a normalization together with what makes its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import DType, Op, Program
from dfcompiler.ir.dims import equal, same_shape
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass, default_probes
from dfcompiler.target import Target
from passes.fuse_elementwise import ELEMENTWISE
from passes.fuse_epilogue import fused
from passes.rules.prices import Prices, prices_on, show_seconds

NORMALIZATIONS = ("layer_norm", "rms_norm")
KERNELS = {
    "cpu": (DType.F32, DType.F64),
    "cuda": (DType.F32, DType.BF16, DType.F16),
}
"""Element types for which a kind of target has a kernel of such rows."""


@dataclass(frozen=True)
class FuseRows(Pass):
    """Fuses gathers and element-wise operators into the normalization that alone reads them.

    ::

        %0 = gather @words, @ids              %3 = fused @words, @ids, … {kernel = "row"} do
        %1 = gather @types, @segments             %.0 = gather @words, @ids
        %2 = add %0, %1              ──▶          %.1 = gather @types, @segments
        %3 = layer_norm %2, @g, @b                %.2 = add %.0, %.1
                                                  %.3 = layer_norm %.2, @g, @b
                                              end

    A row is made, normalized and written while it is in the first-level cache. Gathers take rows of
    a matrix, one for each row of the result. Sums that fit in the epilogue of a product are there
    already, which spares a sweep. Skips what others read too, containers that the program writes,
    and sites where the time model sees no gain.
    """

    target: Target | None = None

    name: ClassVar[str] = "fuse-rows"
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops ==",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        if self.target is None:
            raise UsageError("fuse-rows needs a target: a fusion must pay on it")
        prices = prices_on(self.target, default_probes(program)[-1])
        dtypes = KERNELS[self.target.kind]

        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                if op.kind in NORMALIZATIONS and op.type.dtype in dtypes:
                    _fuse(state, op, prices, decline)

        return rewrite_states(program, rule)


def _fuse(state: StateRewriter, norm: Op, prices: Prices, decline: Decline) -> None:
    """Replaces a normalization by a kernel of it and of the operators above it that may join."""
    members, above = {norm.result: norm}, [norm.inputs[0]]
    while above:
        op = state.producer(above.pop(0))
        if op is None or op.result in members:
            continue
        if op.kind not in ELEMENTWISE and op.kind != "gather":
            continue
        reason = _why_not(state, op, norm, members)
        if reason:
            decline(op, reason)
            continue
        members[op.result] = op
        above += op.inputs if op.kind != "gather" else ()
    if len(members) == 1:
        return
    ops = sorted(members.values(), key=lambda op: state.positions[id(op)])
    values = {name for op in ops for name in op.inputs if name not in members}
    numbers = [op for op in map(state.producer, sorted(values)) if op and _is_number(op)]
    kernel = fused([*numbers, *ops], "row")
    types = {name: state.type_of(name) for name in values}
    apart, together = prices.seconds(ops, types), prices.seconds([kernel], types)
    if together < apart:
        state.replace(norm, [kernel])
        return
    times = f"{show_seconds(together)} as one kernel, {show_seconds(apart)} apart"
    decline(norm, f"predicted {times}")


def _why_not(state: StateRewriter, op: Op, norm: Op, members: dict[str, Op]) -> str:
    if any(user.result not in members for user in state.users(op.result)):
        return "several kernels read it"
    if not op.type.same(norm.type):
        return f"it is {op.type}, not rows of {norm.type}"
    moving = [name for name in op.inputs if not state.is_stable(name)]
    if moving:
        return f"{moving[0]} may be written before the kernel"
    if op.kind == "gather":
        table, index = map(state.type_of, op.inputs)
        if table.rank != 2 or not same_shape(index.shape, op.type.shape[:-1]):
            return "it does not take one row of a matrix for each row"
        return ""
    for name in op.inputs:
        operand = state.type_of(name)
        if operand.dtype is not norm.type.dtype:
            return f"{name} has elements of {operand.dtype.value}"
        last = operand.shape[-1] if operand.shape else 1
        if not (equal(last, 1) or equal(last, norm.type.shape[-1])):
            return f"the rows of {name} are not those of {norm.type}"
    return ""


def _is_number(op: Op) -> bool:
    return op.kind == "constant" and not op.type.shape
