"""Put what follows a matrix product with a matrix into the product's kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from dfcompiler.ir import Attrs, Op, Program
from dfcompiler.ir.dims import equal
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
STAGES = (*ACTIVATIONS, "add", "mul")


@dataclass(frozen=True)
class FuseEpilogue(Pass):
    """Fuses ``[dequantize] · matmul · [bias] · [activation] · [residual]`` into one operator.

    ::

        %0 = matmul %x, @w                   %3 = fused %x, @w, @b, %r {kernel = "linear"} do
        %1 = add %0, @b                          %.0 = matmul %x, @w
        %2 = gelu %1              ──▶            %.1 = add %.0, @b
        %3 = add %2, %r                          %.2 = gelu %.1
                                                 %.3 = add %.2, %r
                                             end

    The stages are applied to a tile while it is in registers, in this order, each optional: a bias
    along the last axis, one activation, adding or multiplying a value of the result's shape.
    Skipped: products of two tensors with batch axes, a product that several operators read, and
    reads of a container that is written in the same state.
    """

    name: ClassVar[str] = "fuse-epilogue"
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "flops ==",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(rewriter: StateRewriter) -> None:
            written = {op.result for op in rewriter.state.ops if op.result.startswith("@")}
            taken: set[str] = set()
            for op in rewriter.state.ops:
                if op.kind == "matmul" and op.result not in taken:
                    _fuse(_Chain(rewriter, written, taken, decline), op)

        return rewrite_states(program, rule)


def _fuse(chain: _Chain, product: Op) -> None:
    """Replaces the last operator of the longest chain from a product; the others die with it."""
    if len(chain.rewriter.type_of(product.inputs[1]).shape) != 2:
        return
    chain.start(product)
    chain.bias()
    chain.activation()
    chain.residual()
    chain.finish()


@dataclass
class _Chain:
    """The operators from a product on that one kernel computes."""

    rewriter: StateRewriter
    written: set[str]
    taken: set[str]
    decline: Decline
    ops: list[Op] = field(default_factory=list)
    has_residual: bool = False

    def start(self, product: Op) -> None:
        codes = self.rewriter.producer(product.inputs[1])
        if codes is not None and codes.kind == "dequantize":
            reason = self.why_no_prologue(codes)
            if reason:
                self.decline(codes, reason)
            else:
                self.ops.append(codes)
        self.ops.append(product)

    def why_no_prologue(self, codes: Op) -> str:
        if self.rewriter.only_user(codes.result) is None:
            return "several operators read the dequantized matrix"
        if len(codes.inputs) == 3:
            return "codes with zero points have no matrix product kernel"
        scale = self.rewriter.type_of(codes.inputs[1]).shape
        rows = scale[-2] if len(scale) > 1 else 1
        if not equal(rows, 1):
            return "the scale varies along the summed axis"
        return ""

    def next(self) -> Op | None:
        """The operator that alone reads the chain's value, if it may join."""
        last = self.ops[-1]
        user = self.rewriter.only_user(last.result)
        if user is None or user.result in self.taken:
            return None
        return user if user.inputs.count(last.result) == 1 else None

    def other(self, user: Op) -> str:
        a, b = user.inputs
        return b if a == self.ops[-1].result else a

    def bias(self) -> None:
        user = self.next()
        if user is None or user.kind != "add":
            return
        shape = self.rewriter.type_of(self.other(user)).shape
        if len(shape) == 1 and equal(shape[0], user.type.shape[-1]):
            self.ops.append(user)

    def activation(self) -> None:
        user = self.next()
        if user is not None and user.kind in ACTIVATIONS:
            self.ops.append(user)

    def residual(self) -> None:
        user = self.next()
        if user is None or user.kind not in ("add", "mul"):
            return
        found = self.rewriter.type_of(self.other(user))
        if found.same(user.type) and user.type.same(self.ops[-1].type):
            self.ops.append(user)
            self.has_residual = True
        else:
            self.decline(user, f"the other operand is {found}, not {user.type}")

    def finish(self) -> None:
        last = self.ops[-1]
        readers = [user.kind for user in self.rewriter.users(last.result)]
        if len(readers) > 1 and not self.has_residual and set(readers).intersection(STAGES):
            self.decline(last, "several operators read it, so it must be stored before they do")
        if len(self.ops) == 1:
            return
        kernel = fused(self.ops, "linear")
        moving = self.written.intersection(kernel.inputs)
        if moving:
            self.decline(self.ops[-1], f"{min(moving)} is written in this state")
            return
        self.taken.update(op.result for op in self.ops)
        self.rewriter.replace(self.ops[-1], [kernel])


def fused(ops: list[Op], kernel: str) -> Op:
    """One operator for a chain or graph of operators whose last one gives the result."""
    inner = {op.result for op in ops[:-1]}
    inputs = tuple(dict.fromkeys(n for op in ops for n in op.inputs if n not in inner))
    names: dict[str, str] = {}
    region: list[Op] = []
    for op in ops:
        name = f"%.{len(region)}"
        region.append(replace(op.renamed(names), result=name))
        names[op.result] = name
    sources = [op.source for op in ops if op.source]
    return Op(
        ops[-1].result,
        ops[-1].type,
        "fused",
        inputs,
        Attrs({"kernel": kernel}),
        sources[0] if kernel == "linear" and sources else ops[-1].source,
        tuple(region),
    )
