"""Store values and weights in 16 bits, for kernels that add up in float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Attrs, DType, Op, Program, Role, State, TensorType
from dfcompiler.ir.rewrite import StateRewriter, drop_unused_weights, map_states
from dfcompiler.pipeline import Decline, Pass
from passes.rules.narrow_containers import NarrowContainers, finite

PRECISIONS = {"f32": DType.F32, "bf16": DType.BF16, "f16": DType.F16}
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
    bf16 has no 257.

    Skips fused regions, so that it comes before the fusions, and operators that update an output
    in place.
    """

    precision: str = "bf16"

    name: ClassVar[str] = "narrow-values"
    # No bytes: what is read in both types is stored in both.
    claims: ClassVar[tuple[str, ...]] = ("flops ==",)
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)

    def run(self, program: Program, decline: Decline) -> Program:
        if self.precision not in PRECISIONS:
            listed = ", ".join(PRECISIONS)
            raise UsageError(f"precision {self.precision} is not known; expected one of {listed}")
        low = PRECISIONS[self.precision]
        if low is DType.F32:
            return program
        containers = NarrowContainers(program, low)

        def narrowed(state: State) -> State:
            return _Narrowing(program, state, containers, decline).result()

        mapped = map_states(program, narrowed)
        return drop_unused_weights(containers.applied_to(mapped))


class _Narrowing:
    """One state, rewritten operator by operator.

    Attributes:
        exact: values that stay in f32: computed from integers, weights and numbers.
        neutral: numbers, by name: each reader gets them in the type that it needs.
        forms: copies of values in another type, by value and type.
        ops: what the operators so far have become.
    """

    def __init__(
        self, program: Program, state: State, containers: NarrowContainers, decline: Decline
    ) -> None:
        self.state, self.containers, self.decline = state, containers, decline
        self.low = containers.low
        self.rewriter = StateRewriter(program, state)
        self.exact: set[str] = set()
        self.neutral: dict[str, Op] = {}
        self.forms: dict[tuple[str, DType], str] = {}
        self.ops: list[Op] = []

    def result(self) -> State:
        for op in self.state.ops:
            self.rewrite(op)
        changed = self.ops != list(self.state.ops)
        return replace(self.state, ops=tuple(self.ops)) if changed else self.state

    def rewrite(self, op: Op) -> None:
        floats = [name for name in dict.fromkeys(op.inputs) if self.is_float(name)]
        if op.kind == "constant" and op.type.dtype is DType.F32 and op.result.startswith("%"):
            self.neutral[op.result] = op
            return
        rounds = op.kind == "cast" and not any(name in self.neutral for name in op.inputs)
        if op.type.dtype is not DType.F32 and (rounds or not floats):
            self.ops.append(op)
        elif self.stays(op, floats):
            self.emit(op, DType.F32)
        else:
            self.emit(op, self.low)
        if op.result.startswith("@"):
            self.forget(op.result)

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
        exact = [name for name in floats if name in self.exact]
        numbers = [name for name in floats if name in self.neutral]
        weights = [name for name in floats if self.containers.is_weight(name)]
        if floats:
            known = len(exact) + len(numbers) + len(weights) == len(floats)
            return known and (bool(exact) or not weights)
        return op.kind in _SOURCES

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
            self.ops.append(self.cast(between, op.result, op.type.with_dtype(stored), op.source))
        if dtype is DType.F32 and op.result.startswith("%"):
            self.exact.add(op.result)

    def wanted(self, op: Op, position: int, dtype: DType) -> DType:
        """The type of an operand: masks that are exact may stay beside narrow scores."""
        is_mask = op.kind == "attention" and position == 3
        return DType.F32 if is_mask and op.inputs[position] in self.exact else dtype

    def form(self, name: str, dtype: DType) -> str:
        """The name of a value in the type that an operator wants it in."""
        if not self.is_float(name):
            return name
        if name in self.neutral:
            return self.number(name, dtype)
        if self.containers.is_weight(name):
            return self.containers.weight(name, dtype)
        stored = DType.F32 if name in self.exact else self.containers.stored(name, self.low)
        if stored is dtype:
            return name
        origin, made = self.rewriter.producer(name), self.rewriter.type_of(name).with_dtype(dtype)
        source = origin.source if origin else ""
        return self.once(name, dtype, lambda fresh: self.cast(name, fresh, made, source))

    def once(self, name: str, dtype: DType, make: Callable[[str], Op]) -> str:
        """The form of `name` that readers share, made by the first of them."""
        key = (name, dtype)
        if key not in self.forms:
            self.forms[key] = self.rewriter.fresh()
            self.ops.append(make(self.forms[key]))
        return self.forms[key]

    def number(self, name: str, dtype: DType) -> str:
        """The name of a constant in the type that an operator wants it in."""
        op = self.neutral[name]
        if dtype is DType.F32:
            if (name, dtype) not in self.forms:
                self.forms[name, dtype] = name
                self.ops.append(op)
            return name
        attrs = Attrs({**op.attrs, "value": finite(op.attr("value"), dtype)})
        new = replace(op, type=op.type.with_dtype(dtype), attrs=attrs)
        return self.once(name, dtype, lambda fresh: replace(new, result=fresh))

    def cast(self, name: str, result: str, kind: TensorType, source: str) -> Op:
        return Op(result, kind, "cast", (name,), Attrs({"to": kind.dtype}), source)

    def forget(self, name: str) -> None:
        """After a write, other forms of a container are what it held before."""
        for dtype in (DType.F32, self.low):
            self.forms.pop((name, dtype), None)
