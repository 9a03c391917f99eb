"""Multiply by the weights of a gate and of what passes it at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.ir import Attrs, Op, Program
from dfcompiler.ir.rewrite import StateRewriter, drop_unused_weights, rewrite_states, with_weights
from dfcompiler.pipeline import Decline, Pass
from passes.fuse_epilogue import ACTIVATIONS, fused
from passes.order_weights import has_few_rows, why_not_along_depth
from passes.rules.side_by_side import ConcatenatedWeights


@dataclass(frozen=True)
class FuseGate(Pass):
    """Makes one kernel of the two products of a gated unit: SwiGLU, GEGLU and their like.

    ::

        %1 = matmul %x, @up                      %2 = fused %x, @gate.merged {kernel = "linear"} do
        %2 = fused %x, @gate, %1 do                  %.0 = matmul %x, @gate.merged
            %.0 = matmul %x, @gate                   %.1 = slice %.0 {starts = [0, 0]}
            %.1 = silu %.0               ──▶         %.2 = slice %.0 {starts = [0, N]}
            %.2 = mul %.1, %1                        %.3 = silu %.1
        end                                          %.4 = mul %.3, %.2
                                                 end

    Both weights lie side by side. A warp has a column of the gate and the one that passes it, so
    that neither is stored: one launch instead of two, and `%x` is read once.

    Skips more rows than the matrix-vector kernel has, depths that it does not read in whole chunks
    of 16 bytes, products with biases, results that others read too, and weights that something else
    reads, which would be stored twice.
    """

    name: ClassVar[str] = "fuse-gate"
    runs_on: ClassVar[tuple[str, ...]] = ("cuda",)
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops ==",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        reads = Counter(name for op in program.ops() for name in op.inputs)
        weights = ConcatenatedWeights(program)

        def rule(state: StateRewriter) -> None:
            for op in state.state.ops:
                passing = _passing(state, op)
                if passing is None:
                    continue
                reason = _why_not(state, op, passing, reads)
                if reason:
                    decline(op, reason)
                else:
                    state.replace(op, [_gated(op, passing, weights)])

        found = rewrite_states(program, rule)
        if found is program:
            return program
        return drop_unused_weights(with_weights(found, weights.data))


def _passing(state: StateRewriter, op: Op) -> Op | None:
    """The product that a fused product's activated sums are multiplied by, of the same operand."""
    if op.kind != "fused" or [inner.kind for inner in op.region[::2]] != ["matmul", "mul"]:
        return None
    gate, activation, last = op.region
    if activation.kind not in ACTIVATIONS:
        return None
    (other,) = [name for name in last.inputs if name != activation.result] or [""]
    passing = state.producer(other) if other else None
    same = passing is not None and passing.kind == "matmul" and passing.inputs[0] == gate.inputs[0]
    return passing if same else None


def _why_not(state: StateRewriter, op: Op, passing: Op, reads: Counter[str]) -> str:
    names = (op.region[0].inputs[1], passing.inputs[1])
    types = [state.type_of(name) for name in names]
    if any(state.weight(name) is None or t.rank != 2 for name, t in zip(names, types, strict=True)):
        return "one of its matrices is no weight"
    if types[0] != types[1]:
        return f"its weights differ: {types[0]} and {types[1]}"
    if not has_few_rows(op):
        return f"{op.type} has more rows than the matrix-vector kernel"
    if state.only_user(passing.result) is None or op.region[0].inputs.count(names[0]) != 1:
        return "something else reads what passes the gate"
    if not state.is_stable(op.inputs[0]):
        return f"{op.inputs[0]} may be written between the products"
    if reason := why_not_along_depth(types[0]):
        return reason
    shared = [name for name in names if reads[name] > 1]
    return f"{shared[0]} is also read elsewhere and would be stored twice" if shared else ""


def _gated(op: Op, passing: Op, weights: ConcatenatedWeights) -> Op:
    product, activation, last = op.region
    columns = op.type.shape[-1]
    weight = weights.of((product.inputs[1], passing.inputs[1]))
    whole = op.type.with_shape((*op.type.shape[:-1], 2 * columns))
    first = replace(product, type=whole, inputs=(product.inputs[0], weight))

    def half(name: str, start: int) -> Op:
        starts = Attrs({"starts": (*(0 for _ in whole.shape[1:]), start)})
        return Op(name, op.type, "slice", (first.result,), starts, op.source)

    parts = (half("%gate", 0), half("%passing", int(columns)))
    activated = activation.renamed({product.result: "%gate"})
    met = last.renamed({passing.result: "%passing"})
    kernel = fused([first, *parts, activated, replace(met, result=op.result)], "linear")
    return replace(kernel, source=op.source)
