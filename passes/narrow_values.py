"""Store values and weights in 16 bits, for kernels that add up in float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Attrs, DType, Op, Program, Role, State
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass
from passes.rules.narrow_containers import NarrowContainers
from passes.rules.narrow_range import greatest_lost, rounded_number, why_not_narrow
from passes.rules.precisions import precision_type
from passes.rules.retyping import Retyping, cast

_SOURCES = ("iota", "dim", "cast")
"""Operators that make f32 of something else."""


@dataclass(frozen=True)
class NarrowValues(Pass):
    """Gives every f32 value, weight and state the type of the precision.

    ::

        input  @x: f32[S, K]                   input  @x: f32[S, K]
        weight @w: f32[K, N]                   weight @w: bf16[K, N]
        %0: f32[S, N] = matmul @x, @w          %2: bf16[S, K] = cast @x {to = bf16}
        %1: f32[S, N] = gelu %0        ──▶     %0: bf16[S, N] = matmul %2, @w
        @y: f32[S, N] = softmax %1             %1: bf16[S, N] = gelu %0
                                               %3: bf16[S, N] = softmax %1
                                               @y: f32[S, N] = cast %3 {to = f32}

    Inputs and outputs of the model keep their types; kernels add up in float whatever they store.
    Values computed from integers alone, such as the angles of positions and masks, and what the
    model itself casts to f32 stay in f32 up to the first operator that mixes them with others:
    bf16 has no 257. So does what an operator gives that reads a weight or a number beyond the
    narrow type, such as 1e6 for f16. Fills of masks, -3.4e38, become its most negative number.

    Skips fused regions, so that it comes before the fusions, and operators that update an output
    in place.
    """

    precision: str = "bf16"

    name: ClassVar[str] = "narrow-values"
    # No bytes: what is read in both types is stored in both.
    claims: ClassVar[tuple[str, ...]] = ("flops ==",)
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)

    def run(self, program: Program, decline: Decline) -> Program:
        low = precision_type(self.precision)
        if low is DType.F32:
            return program
        containers = NarrowContainers(program, low)

        def narrowed(state: State) -> State:
            return _Narrowing(program, state, containers, decline).result()

        return containers.applied_to(map_states(program, narrowed))


class _Narrowing(Retyping):
    """One state, narrowed.

    Attributes:
        exact: values of f32: computed from integers, weights and numbers, or from something beyond
            the narrow type.
        neutral: numbers, by name: each reader gets them in the type that it needs.
    """

    def __init__(
        self, program: Program, state: State, containers: NarrowContainers, decline: Decline
    ) -> None:
        super().__init__(program, state, decline)
        self.containers, self.low = containers, containers.low
        self.exact: set[str] = set()
        self.neutral: dict[str, Op] = {}

    def rewrite(self, op: Op) -> None:
        floats = [name for name in dict.fromkeys(op.inputs) if self.is_float(name)]
        rounds = op.kind == "cast" and not any(name in self.neutral for name in op.inputs)
        if op.kind == "constant" and op.type.dtype is DType.F32:
            self.keep_number(op)
        elif op.type.dtype is not DType.F32 and (rounds or not floats):
            self.ops.append(op)
        elif self.stays(op, floats):
            self.emit(op, DType.F32)
        else:
            self.emit(op, self.low)

    def is_float(self, name: str) -> bool:
        return self.rewriter.type_of(name).dtype is DType.F32

    def stays(self, op: Op, floats: list[str]) -> bool:
        """Whether an operator computes in f32 as before."""
        if op.region:
            self.decline(op, "it is fused already")
            return True
        if op.result in op.inputs and self.containers.role(op.result) is Role.OUTPUT:
            self.decline(op, "it updates an output in place")
            return True
        if not floats:
            return op.kind in _SOURCES
        exact = [name for name in floats if name in self.exact]
        numbers = [name for name in floats if name in self.neutral]
        weights = [name for name in floats if self.containers.weights.is_weight(name)]
        known = len(exact) + len(numbers) + len(weights) == len(floats)
        return (known and (bool(exact) or not weights)) or self.reads_beyond(op)

    def reads_beyond(self, op: Op) -> bool:
        """Whether an operator reads what the narrow type has no place for, masks left out."""
        reasons = [self.why_not(name) for name in op.inputs]
        for reason in dict.fromkeys(filter(None, reasons)):
            self.decline(op, reason)
        return any(reason and not _is_mask(op, i) for i, reason in enumerate(reasons))

    def why_not(self, name: str) -> str:
        """Why a number or what a container holds cannot be narrow; empty if it can."""
        if name in self.neutral:
            op = self.neutral[name]
            lost = greatest_lost(op.attr("value"), self.low)
            return why_not_narrow(op.source or name, lost, self.low) if lost else ""
        is_data = name.startswith("@") and self.is_float(name)
        return self.containers.weights.why_not(name) if is_data else ""

    def emit(self, op: Op, dtype: DType) -> None:
        """Appends the operator computing in `dtype`, and a cast where its result is another."""
        forms = {n: self.form(n, self.wanted(op, i, dtype)) for i, n in enumerate(op.inputs)}
        new = op.renamed({old: now for old, now in forms.items() if old != now})
        if op.type.dtype is not DType.F32:
            self.ops.append(new)
            return
        attrs = {**op.attrs, "to": dtype} if "to" in op.attrs else op.attrs
        new = replace(new, attrs=Attrs(attrs), type=op.type.with_dtype(dtype))
        stored = self.containers.stored(op.result, dtype)
        if stored is dtype:
            self.ops.append(new)
        else:
            between = self.rewriter.fresh()
            self.ops.append(replace(new, result=between))
            self.ops.append(cast(between, op.result, op.type.with_dtype(stored), op.source))
        if dtype is DType.F32 and op.result.startswith("%"):
            self.exact.add(op.result)

    def wanted(self, op: Op, position: int, dtype: DType) -> DType:
        """The type of an operand: masks that are exact or beyond it may stay beside scores."""
        name = op.inputs[position]
        wide = _is_mask(op, position) and (name in self.exact or bool(self.why_not(name)))
        return DType.F32 if wide else dtype

    def form(self, name: str, dtype: DType) -> str:
        """The name of a value in the type that an operator wants it in."""
        if not self.is_float(name):
            return name
        if name in self.neutral:
            return self.number(name, dtype)
        weights = self.containers.weights
        if weights.is_weight(name):
            return name if dtype is DType.F32 else weights.copy(name)
        stored = DType.F32 if name in self.exact else self.containers.stored(name, self.low)
        return name if stored is dtype else self.copy(name, dtype)

    def keep_number(self, op: Op) -> None:
        """Keeps a constant for its readers; one that a container is to hold is stored at once."""
        if op.result.startswith("%"):
            self.neutral[op.result] = op
            return
        stored = self.containers.stored(op.result, self.low)
        lost = greatest_lost(op.attr("value"), stored) if stored is self.low else 0.0
        if lost:
            raise UsageError(
                why_not_narrow(op.result, lost, stored),
                where=(f"in state {self.state.name}",),
                hint="use --precision bf16, which reaches as far as f32",
            )
        self.ops.append(_constant(op, op.result, stored))

    def number(self, name: str, dtype: DType) -> str:
        """The name of a constant in the type that an operator wants it in."""
        forms = self.forms[name]
        if dtype not in forms:
            forms[dtype] = name if dtype is DType.F32 else self.rewriter.fresh()
            self.ops.append(_constant(self.neutral[name], forms[dtype], dtype))
        return forms[dtype]


def _is_mask(op: Op, position: int) -> bool:
    return op.kind == "attention" and position == 3


def _constant(op: Op, result: str, dtype: DType) -> Op:
    if dtype is DType.F32:
        return replace(op, result=result)
    attrs = Attrs({**op.attrs, "value": rounded_number(op.attr("value"), dtype)})
    return replace(op, result=result, type=op.type.with_dtype(dtype), attrs=attrs)
