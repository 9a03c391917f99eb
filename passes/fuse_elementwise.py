"""Compute graphs of element-wise operators in one sweep over the elements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from dfcompiler.ir import OPERATORS, Op, OpClass, Program, State
from dfcompiler.ir.dims import same_shape
from dfcompiler.ir.rewrite import StateRewriter, rewrite_states
from dfcompiler.pipeline import Decline, Pass
from passes.fuse_epilogue import fused

ELEMENTWISE = frozenset(
    kind
    for kind, spec in OPERATORS.items()
    if spec.op_class is OpClass.ELEMENTWISE and kind not in ("fused", "rotary")
)
INDEXING = frozenset(("expand", "slice", "reshape", "transpose"))
"""Operators that a kernel can do by reading at another index."""

GENERATED = frozenset(("constant", "dim", "iota"))
"""Values that cost no memory traffic; every kernel that needs one gets its own."""

CHEAP = INDEXING.union(
    ("cast", "not", "and", "or", "xor", "where", "neg", "abs", "sign", "add", "sub", "mul"),
    ("min", "max", "relu", "isnan", "isinf", "equal", "not_equal"),
    ("less", "less_equal", "greater", "greater_equal"),
)
"""Operators that may be computed again for every element that their result is broadcast to."""


@dataclass(frozen=True)
class FuseElementwise(Pass):
    """Fuses each element-wise operator with the producers that only it reads.

    ::

        %0 = neg @x                            %2 = fused @x, @y {kernel = "elementwise"} do
        %1 = exp %0                                %.0 = neg @x
        %2 = add %1, @y            ──▶             %.1 = exp %.0
                                                   %.2 = add %.1, @y
                                               end

    A producer joins when all of its readers are in one kernel, when it has the kernel's extents or
    is cheap enough to be computed again where it is broadcast, and when no container that it reads
    is written before the kernel. Numbers and index ranges are copied into each kernel.
    Broadcasts, slices, unit axes and transposes that keep the last axis become indexing.

    Attributes:
        limit: the most operators in one kernel.
    """

    limit: int = 64

    name: ClassVar[str] = "fuse-elementwise"
    # No operations: what is broadcast may be computed again for every element.
    claims: ClassVar[tuple[str, ...]] = (
        "ops <=",
        "moved_bytes <=",
        "io_bound_bytes ==",
        "weight_bytes ==",
        "value_bytes <=",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        def rule(rewriter: StateRewriter) -> None:
            _Grouping(rewriter, self.limit, decline).run()

        return rewrite_states(program, rule)


@dataclass
class _Grouping:
    """Assigns operators to kernels, last operator first, so that readers are decided before."""

    rewriter: StateRewriter
    limit: int
    decline: Decline
    root_of: dict[str, Op] = field(default_factory=dict)
    members: dict[str, list[Op]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.state: State = self.rewriter.state
        self.positions = {
            op.result: i for i, op in enumerate(self.state.ops) if op.result[0] == "%"
        }
        self.writes: dict[str, list[int]] = defaultdict(list)
        for i, op in enumerate(self.state.ops):
            if op.result.startswith("@"):
                self.writes[op.result].append(i)

    def run(self) -> None:
        for position in reversed(range(len(self.state.ops))):
            op = self.state.ops[position]
            if op.kind in GENERATED and op.result.startswith("%"):
                continue
            if op.kind in ELEMENTWISE or op.kind in INDEXING:
                self.assign(op, position)
        for root in self.state.ops:
            self.fuse(root)

    def assign(self, op: Op, position: int) -> None:
        root = self.common_root(op)
        reason = self.why_not(op, position, root) if root is not None else ""
        if root is None or reason:
            if reason:
                self.decline(op, reason)
            self.root_of[op.result] = op
            self.members[op.result] = [op]
            return
        self.root_of[op.result] = root
        self.members[root.result].append(op)

    def common_root(self, op: Op) -> Op | None:
        """The kernel that all readers of a value belong to."""
        if not op.result.startswith("%"):
            return None
        roots = [self.root_of.get(user.result) for user in self.rewriter.users(op.result)]
        found = [root for root in roots if root is not None and root.kind in ELEMENTWISE]
        if not found:
            return None
        if len(found) < len(roots) or any(root is not found[0] for root in found):
            self.decline(op, "several kernels read it")
            return None
        return found[0]

    def why_not(self, op: Op, position: int, root: Op) -> str:
        if len(self.members[root.result]) >= self.limit:
            return f"the kernel has {self.limit} operators already"
        if not same_shape(op.type.shape, root.type.shape) and op.kind not in CHEAP:
            return f"{op.kind} would be computed again for every element of {root.type}"
        if op.kind == "reshape" and not self.only_unit_axes(op):
            return "the reshape merges or splits axes"
        if op.kind == "transpose" and op.attr("perm")[-1:] != (op.type.rank - 1,):
            return "the transpose moves the last axis"
        end = self.state_position(root)
        for name in op.inputs:
            if any(position < write < end for write in self.writes.get(name, ())):
                return f"{name} is written before the kernel"
        return ""

    def state_position(self, root: Op) -> int:
        return self.rewriter.positions[id(root)]

    def only_unit_axes(self, op: Op) -> bool:
        source = self.rewriter.type_of(op.inputs[0]).shape
        long = [[d for d in shape if not _is_one(d)] for shape in (source, op.type.shape)]
        return same_shape(*long)

    def fuse(self, root: Op) -> None:
        members = self.members.get(root.result)
        if members is None or self.root_of.get(root.result) is not root:
            return
        if root.kind not in ELEMENTWISE:
            return
        ops = [*self.generated(members), *reversed(members)]
        if len(ops) == 1:
            return
        if self.overwrites(root, members):
            self.decline(root, f"the kernel reads {root.result} at other indices than it writes")
            return
        self.rewriter.replace(root, [fused(ops, "elementwise")])

    def generated(self, members: list[Op]) -> Iterator[Op]:
        """The numbers and index ranges that a kernel reads, in the order of the state."""
        names = {name for op in members for name in op.inputs}
        found = [self.rewriter.producer(name) for name in names]
        values = [op for op in found if op is not None and op.kind in GENERATED]
        return iter(sorted(values, key=lambda op: self.positions[op.result]))

    def overwrites(self, root: Op, members: list[Op]) -> bool:
        """Whether the container that the kernel writes is read where another element lies."""
        readers = [op for op in members if root.result in op.inputs]
        return any(
            op.kind in INDEXING or not same_shape(op.type.shape, root.type.shape) for op in readers
        )


def _is_one(dim: object) -> bool:
    return isinstance(dim, int) and dim == 1
