"""Which values of a state its operators read in bfloat16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from dfcompiler.ir import DType, Op, State, TensorType
from passes.rules.rounded_weights import RoundedWeights

LOW = DType.BF16
HEAD_STEP, MOST_HEAD = 32, 256
"""Widths of heads that the attention kernel takes: multiples of a tile, up to its buffers."""
MOVEMENT = ("reshape", "transpose", "slice", "expand")
"""Operators that move elements of any type: they pass the wish for the lower precision on."""


class PrecisionWishes:
    """The operands that operators want in bfloat16, found from the end of a state to its start.

    Attributes:
        low: values that all their readers want in bfloat16; they are stored in it.
    """

    def __init__(
        self,
        state: State,
        type_of: Callable[[str], TensorType],
        weights: RoundedWeights,
        extension: str,
    ) -> None:
        """The wishes of a state.

        Args:
            state: operators in order.
            type_of: the type of a value or container.
            weights: which weights can be right-hand sides.
            extension: of the target's instruction set.
        """
        self.type_of, self.weights, self.extension = type_of, weights, extension
        self.low: set[str] = set()
        reads: dict[str, list[bool]] = defaultdict(list)
        for op in reversed(state.ops):
            readers = reads[op.result]
            is_value = op.result.startswith("%") and op.type.dtype is DType.F32
            if is_value and readers and all(readers):
                self.low.add(op.result)
            wanted = self.wanted(op)
            for name in op.inputs:
                reads[name].append(name in wanted and _reads_once(op, name))

    def wanted(self, op: Op) -> set[str]:
        """Operands that an operator will read in bfloat16."""
        product = self.product(op)
        if product is not None:
            return {product.inputs[0]}
        if op.result in self.low:
            if op.kind in MOVEMENT:
                return {op.inputs[0]}
            if op.kind == "attention" and not self.why_not_attention(op):
                return set(op.inputs[:3])
        return set()

    def product(self, op: Op) -> Op | None:
        """The product in an operator that can take its operands in bfloat16."""
        for inner in op.region or (op,):
            if inner.kind == "matmul" and not self.why_not_product(op, inner):
                return inner
        return None

    def why_not_product(self, op: Op, product: Op) -> str:
        """Why a product in an operator stays in f32; empty if it can be rounded."""
        if op.region and op.attr("kernel", "") != "linear":
            return "its kernel multiplies in f32"
        if product.inputs[0] in {inner.result for inner in op.region}:
            return "its left-hand side is computed in the same kernel"
        if not self.weights.is_matrix(product.inputs[1]):
            return "its right-hand side is no matrix of f32 weights"
        return self.weights.why_not(product.inputs[1])

    def why_not_attention(self, op: Op) -> str:
        """Why the kernel of bfloat16 does not take an attention operator; empty if it does."""
        if self.extension != "amx":
            return "the target has no matrix tiles (AMX)"
        if any(self.type_of(name).dtype is not DType.F32 for name in op.inputs[:3]):
            return "its operands are no f32"
        widths = [self.type_of(name).shape[3] for name in op.inputs[1:3]]
        if any(not isinstance(w, int) or w % HEAD_STEP or w > MOST_HEAD for w in widths):
            return f"heads of {widths[0]} elements; tiles take multiples of {HEAD_STEP}"
        return ""


def _reads_once(op: Op, name: str) -> bool:
    """Whether nothing else in a region reads what its product reads."""
    return sum(inner.inputs.count(name) for inner in op.region or (op,)) == 1
