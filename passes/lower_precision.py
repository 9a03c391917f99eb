"""Multiply in bfloat16: weights are stored in it, sums stay in float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.ir import Attrs, DType, Op, Program, State
from dfcompiler.ir.rewrite import map_states
from dfcompiler.pipeline import Decline, Pass
from dfcompiler.target import CpuTarget
from passes.rules.precision_wishes import LOW, MOVEMENT, PrecisionWishes
from passes.rules.precisions import precision_type
from passes.rules.retyping import Retyping, cast
from passes.rules.rounded_weights import RoundedWeights


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

    Skips products whose right-hand side is no weight matrix of f32, int8 codes among them, or has
    numbers beyond bfloat16, and attention whose result something else reads or that the target has
    no tiles for.
    """

    precision: str = "bf16"
    target: CpuTarget | None = None

    name: ClassVar[str] = "lower-precision"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu",)
    # No bytes: casts are sweeps, and a weight that something else reads is stored in both types.
    claims: ClassVar[tuple[str, ...]] = ("flops ==",)

    def run(self, program: Program, decline: Decline) -> Program:
        if precision_type(self.precision, ("f32", "bf16")) is DType.F32:
            return program
        weights = RoundedWeights(program, LOW)
        extension = self.target.extension if self.target else ""

        def lowered(state: State) -> State:
            return _Lowering(program, state, weights, extension, decline).result()

        return weights.added_to(map_states(program, lowered))


class _Lowering(Retyping):
    """One state, lowered as its wishes say.

    Attributes:
        wishes: which values are wanted in bfloat16.
    """

    def __init__(
        self,
        program: Program,
        state: State,
        weights: RoundedWeights,
        extension: str,
        decline: Decline,
    ) -> None:
        super().__init__(program, state, decline)
        self.weights = weights
        self.wishes = PrecisionWishes(state, self.rewriter.type_of, weights, extension)

    def rewrite(self, op: Op) -> None:
        product = self.wishes.product(op)
        if product is not None:
            self.ops.append(self.rounded(self.multiplied(op, product)))
        elif op.result in self.wishes.low:
            self.produce(op)
        else:
            self.explain(op)
            self.ops.append(op)

    def explain(self, op: Op) -> None:
        """Says why an operator stays in f32."""
        for inner in op.region or (op,):
            if inner.kind == "matmul" and inner.type.dtype is DType.F32:
                self.decline(op, self.wishes.why_not_product(op, inner))
        if op.kind == "attention" and op.type.dtype is DType.F32:
            self.decline(op, "something reads its result in f32")

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
        reason = self.wishes.why_not_attention(op) if op.kind == "attention" else ""
        if op.kind in MOVEMENT or (op.kind == "attention" and not reason):
            changed = {name: self.in_bf16(name) for name in self.wishes.wanted(op)}
            self.ops.append(replace(op.renamed(changed), type=op.type.with_dtype(LOW)))
        elif op.kind == "fused":
            self.ops.append(self.rounded(op))
        else:
            if reason:
                self.decline(op, reason)
            wide = self.rewriter.fresh()
            self.ops.append(replace(op, result=wide))
            self.ops.append(cast(wide, op.result, op.type.with_dtype(LOW), op.source))

    def rounded(self, op: Op) -> Op:
        """The operator with a last step that rounds, if its result is to be stored rounded."""
        if op.result not in self.wishes.low:
            return op
        region = op.region or (replace(op, result="%.0"),)
        last = region[-1].result
        narrow = region[-1].type.with_dtype(LOW)
        region = (*region, cast(last, f"%.{len(region)}", narrow, region[-1].source))
        kernel = {"kernel": "linear"} if op.kind == "matmul" else dict(op.attrs)
        inputs = _read_by(region)
        return Op(
            op.result, op.type.with_dtype(LOW), "fused", inputs, Attrs(kernel), op.source, region
        )

    def in_bf16(self, name: str) -> str:
        """`name` as bfloat16: itself, or a cast that all readers in the state share."""
        return name if name in self.wishes.low else self.copy(name, LOW)


def _read_by(region: tuple[Op, ...]) -> tuple[str, ...]:
    """What a region reads from outside, in order."""
    own = {inner.result for inner in region}
    return tuple(dict.fromkeys(n for inner in region for n in inner.inputs if n not in own))
