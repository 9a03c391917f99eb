"""Multiply in bfloat16: weights are stored in it, sums stay in float."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Attrs, DType, Op, Program, State
from dfcompiler.ir.rewrite import StateRewriter, drop_unused_weights, map_states
from dfcompiler.pipeline import Decline, Pass
from dfcompiler.target import CpuTarget
from passes.rules.rounded_weights import LOW, RoundedWeights

HEAD_STEP, MOST_HEAD = 32, 256
"""Widths of heads that the attention kernel takes: multiples of a tile, up to its buffers."""
MOVEMENT = ("reshape", "transpose", "slice", "expand")
"""Operators that move elements of any type: they pass the wish for the lower precision on."""


@dataclass(frozen=True)
class LowerPrecision(Pass):
    """Gives matrix products and attention operands in bfloat16; both add up in float.

    ::

        weight @w: f32[K, N]                  weight @w: bf16[K, N]
        %0: f32[S, K] = gelu %x               %0: f32[S, K] = gelu %x
        %1: f32[S, N] = matmul %0, @w   ──▶   %2: bf16[S, K] = cast %0 {to = bf16}
                                              %1: f32[S, N] = matmul %2, @w {accumulate = f32}

    Weights are rounded to nearest even. A value that only such operands read is stored in
    bfloat16: the product or element-wise kernel that computes it rounds it at its end, and views
    hand it on. Everything else stays as it is: normalizations, softmax, residual sums, biases.

    Skips products whose right-hand side is no weight matrix of f32, int8 codes among them, and
    attention whose result something else reads
    or that the target has no tiles for.
    """

    precision: str = "bf16"
    target: CpuTarget | None = None

    name: ClassVar[str] = "lower-precision"
    claims: ClassVar[tuple[str, ...]] = ("flops ==",)

    def run(self, program: Program, decline: Decline) -> Program:
        if self.precision not in ("f32", "bf16"):
            raise UsageError(f"precision {self.precision} is not known; expected f32 or bf16")
        if self.precision == "f32":
            return program
        weights = RoundedWeights(program)
        extension = self.target.extension if self.target else ""

        def lowered(state: State) -> State:
            return _Lowering(program, state, weights, decline, extension).result()

        return drop_unused_weights(weights.added_to(map_states(program, lowered)))


@dataclass
class _Lowering:
    """One state: what wants bfloat16 is found from the end, then operators are rewritten in order.

    Attributes:
        extension: of the target's instruction set.
        low: values that all their readers want in bfloat16.
        casts: the bfloat16 copies of other values.
    """

    program: Program
    state: State
    weights: RoundedWeights
    decline: Decline
    extension: str
    low: set[str] = field(default_factory=set)
    casts: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rewriter = StateRewriter(self.program, self.state)

    def result(self) -> State:
        reads: dict[str, list[bool]] = defaultdict(list)
        for op in reversed(self.state.ops):
            readers = reads[op.result]
            is_value = op.result.startswith("%") and op.type.dtype is DType.F32
            if is_value and readers and all(readers):
                self.low.add(op.result)
            wanted = self.wanted(op)
            for name in op.inputs:
                reads[name].append(name in wanted and self.reads_once(op, name))
        for op in self.state.ops:
            self.rewrite(op)
        return (
            self.state
            if self.ops == list(self.state.ops)
            else replace(self.state, ops=tuple(self.ops))
        )

    def wanted(self, op: Op) -> set[str]:
        """Operands that an operator will read in bfloat16."""
        product = next(self.products(op), None)
        if product is not None:
            return {product.inputs[0]}
        if op.result in self.low:
            if op.kind in MOVEMENT:
                return {op.inputs[0]}
            if op.kind == "attention" and not self.why_not_attention(op):
                return set(op.inputs[:3])
        return set()

    def products(self, op: Op) -> Iterator[Op]:
        """The product in an operator that can take its operands in bfloat16."""
        if op.kind != "matmul" and op.attr("kernel", "") != "linear":
            return
        own = {inner.result for inner in op.region}
        for inner in op.region or (op,):
            fits = inner.kind == "matmul" and self.weights.fits(inner.inputs[1])
            if fits and inner.inputs[0] not in own:
                yield inner

    def why_not_attention(self, op: Op) -> str:
        """Why the kernel of bfloat16 does not take an attention operator; empty if it does."""
        if self.extension != "amx":
            return "the target has no matrix tiles (AMX)"
        if any(self.rewriter.type_of(name).dtype is not DType.F32 for name in op.inputs[:3]):
            return "its operands are no f32"
        widths = [self.rewriter.type_of(name).shape[3] for name in op.inputs[1:3]]
        if any(not isinstance(w, int) or w % HEAD_STEP or w > MOST_HEAD for w in widths):
            return f"heads of {widths[0]} elements; tiles take multiples of {HEAD_STEP}"
        return ""

    def reads_once(self, op: Op, name: str) -> bool:
        """Whether nothing else in a region reads what its product reads."""
        return sum(inner.inputs.count(name) for inner in op.region or (op,)) == 1

    def rewrite(self, op: Op) -> None:
        product = next(self.products(op), None)
        if product is not None:
            self.ops.append(self.rounded(self.multiplied(op, product)))
        elif op.result in self.low:
            self.produce(op)
        else:
            if any(
                inner.kind == "matmul" and inner.type.dtype is DType.F32
                for inner in op.region or (op,)
            ):
                self.decline(op, "its right-hand side is no matrix of f32 weights")
            if op.kind == "attention" and op.type.dtype is DType.F32:
                self.decline(op, "something reads its result in f32")
            self.ops.append(op)
        if op.result.startswith("@"):
            self.casts.pop(op.result, None)

    def multiplied(self, op: Op, product: Op) -> Op:
        """The operator with its product in bfloat16."""
        a, w = product.inputs
        names = (self.in_bf16(a), self.weights.copy(w))
        changed = replace(product, inputs=names, attrs=Attrs({"accumulate": DType.F32}))
        if not op.region:
            return changed
        region = tuple(changed if inner is product else inner for inner in op.region)
        return replace(op, region=region, inputs=_read_by(region))

    def produce(self, op: Op) -> None:
        """Appends an operator whose result is stored in bfloat16."""
        reason = self.why_not_attention(op) if op.kind == "attention" else ""
        if op.kind in MOVEMENT or (op.kind == "attention" and not reason):
            changed = {name: self.in_bf16(name) for name in self.wanted(op)}
            self.ops.append(replace(op.renamed(changed), type=op.type.with_dtype(LOW)))
        elif op.kind == "fused":
            self.ops.append(self.rounded(op))
        else:
            if reason:
                self.decline(op, reason)
            wide = self.rewriter.fresh()
            self.ops.append(replace(op, result=wide))
            self.ops.append(self.cast(wide, op.result, op))

    def rounded(self, op: Op) -> Op:
        """The operator with a last step that rounds, if its result is to be stored rounded."""
        if op.result not in self.low:
            return op
        region = op.region or (replace(op, result="%.0"),)
        last = region[-1].result
        region = (*region, self.cast(last, f"%.{len(region)}", region[-1]))
        kernel = {"kernel": "linear"} if op.kind == "matmul" else dict(op.attrs)
        inputs = _read_by(region)
        return Op(
            op.result, op.type.with_dtype(LOW), "fused", inputs, Attrs(kernel), op.source, region
        )

    def in_bf16(self, name: str) -> str:
        """`name` as bfloat16: itself, or a cast that all readers in the state share."""
        if name in self.low:
            return name
        if name not in self.casts:
            producer = self.rewriter.producer(name)
            copy = self.rewriter.fresh()
            type_ = self.rewriter.type_of(name).with_dtype(LOW)
            source = producer.source if producer else ""
            self.ops.append(Op(copy, type_, "cast", (name,), Attrs({"to": LOW}), source))
            self.casts[name] = copy
        return self.casts[name]

    def cast(self, name: str, result: str, op: Op) -> Op:
        type_ = op.type.with_dtype(LOW)
        return Op(result, type_, "cast", (name,), Attrs({"to": LOW}), op.source)


def _read_by(region: tuple[Op, ...]) -> tuple[str, ...]:
    """What a region reads from outside, in order."""
    own = {inner.result for inner in region}
    return tuple(dict.fromkeys(n for inner in region for n in inner.inputs if n not in own))
