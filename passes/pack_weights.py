"""Store weights in the order in which the matrix product kernel reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Container, DType, Layout, Op, PhysicalAxis, Program, Role, State
from dfcompiler.ir.rewrite import map_states, read_containers
from dfcompiler.pipeline import Decline, Pass
from dfcompiler.target import CpuTarget
from passes.rules.names import unused


@dataclass(frozen=True)
class PackWeights(Pass):
    """Gives the right-hand matrix of each product the layout of column panels.

    ::

        weight @w: f32[K, N]              weight @w: f32[K, N; 1/64 0 1%64]
        %0 = matmul %x, @w        ──▶     %0 = matmul %x, @w

    A panel has as many columns as the kernel's register tile; the last one is padded. bfloat16
    weights lie in pairs along the summed axis: ``1/32 0/2 1%32 0%2``. Only the container's type
    changes: values are moved when the artifact is written. A weight that is also
    read by something else is stored a second time, as it is. Codes of a `dequantize` inside a fused
    product are packed the same way. A product with `packed = false` reads its weight as it is.
    """

    target: CpuTarget | None = None

    name: ClassVar[str] = "pack-weights"
    runs_on: ClassVar[tuple[str, ...]] = ("cpu",)
    # Panels are padded, and a weight that something else reads too is stored in both layouts.
    claims: ClassVar[tuple[str, ...]] = (
        "ops ==",
        "flops ==",
        "io_bound_bytes ==",
        "value_bytes ==",
    )

    def run(self, program: Program, decline: Decline) -> Program:
        if self.target is None:
            raise UsageError("pack-weights needs a target: the panels are as wide as its registers")
        layouts = panel_layouts(self.target)
        wanted = packable(program)
        if not wanted:
            return program
        shared = read_otherwise(program, wanted)
        names = {name: unused(f"{name}.packed", program.table()) for name in sorted(shared)}
        packed = map_states(program, lambda state: _renamed(state, names))
        return _with_layouts(packed, wanted, names, layouts)


def panel_layouts(target: CpuTarget) -> dict[DType, Layout]:
    """The panels that each element type is packed in; the other types have those of f32."""
    wide, low = target.gemm_nr, target.bf16_nr
    panels = Layout((PhysicalAxis(1, wide), PhysicalAxis(0), PhysicalAxis(1, wide, True)))
    pairs = ((1, low, False), (0, 2, False), (1, low, True), (0, 2, True))
    return {DType.F32: panels, DType.BF16: Layout(tuple(PhysicalAxis(*pair) for pair in pairs))}


def right_operands(op: Op) -> Iterator[str]:
    """The names that an operator reads as right-hand matrices to pack, or as codes of one."""
    if not op.attr("packed", True):
        return
    codes = {inner.result: inner.inputs[0] for inner in op.region if inner.kind == "dequantize"}
    for inner in op.region or (op,):
        if inner.kind == "matmul":
            yield codes.get(inner.inputs[1], inner.inputs[1])


def packable(program: Program) -> set[str]:
    """Row-major matrices among the weights that a product reads on the right."""
    table = program.table()
    found: set[str] = set()
    for op in program.ops():
        for name in right_operands(op):
            container = table.get(name.removeprefix("@")) if name.startswith("@") else None
            if container is None or container.role is not Role.WEIGHT:
                continue
            if container.type.rank == 2 and container.type.layout.is_row_major:
                found.add(container.name)
    return found


def read_otherwise(program: Program, wanted: set[str]) -> set[str]:
    """Those that are also read in another way, and so are kept as they are, too."""
    found: set[str] = set()
    for op in program.ops():
        packed = set(right_operands(op))
        found.update(n[1:] for n in op.inputs if n[1:] in wanted and n not in packed)
        reads: dict[str, int] = defaultdict(int)
        for inner in op.region or (op,):
            for name in inner.inputs:
                reads[name] += 1
        found.update(n[1:] for n in packed if n[1:] in wanted and reads[n] > 1)
    flags = read_containers(program) - {n[1:] for op in program.ops() for n in op.inputs}
    return found | (wanted & flags)


def _renamed(state: State, names: dict[str, str]) -> State:
    """The state with products reading the packed copies."""
    if not names:
        return state
    ops = tuple(
        op.renamed({n: f"@{names[n[1:]]}" for n in right_operands(op) if n[1:] in names})
        for op in state.ops
    )
    return (
        state
        if all(a is b for a, b in zip(ops, state.ops, strict=True))
        else replace(state, ops=ops)
    )


def _with_layouts(
    program: Program, wanted: set[str], names: dict[str, str], layouts: dict[DType, Layout]
) -> Program:
    containers: list[Container] = []
    data = dict(program.data)
    for container in program.containers:
        if container.name not in wanted:
            containers.append(container)
            continue
        layout = layouts.get(container.type.dtype, layouts[DType.F32])
        packed = replace(container.type, layout=layout)
        if container.name in names:
            containers.append(container)
            copy = names[container.name]
            containers.append(Container(Role.WEIGHT, copy, packed))
            if container.name in data:
                data[copy] = data[container.name]
        else:
            containers.append(replace(container, type=packed))
    return replace(program, containers=tuple(containers), data=data)
