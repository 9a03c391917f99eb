"""The matrix product of bfloat16 operands with an epilogue: C = epilogue(A·B), sums in float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dace
from dace import dtypes, library, properties
from dace.sdfg import nodes
from dace.symbolic import int_floor
from dace.transformation.transformation import ExpandTransformation

from dfcompiler.lowering.nodes.expansion import (
    Arrays,
    add_element_map,
    add_pointer_map,
    connected_arrays,
    data,
    in_place_of,
    nested_graph,
)
from dfcompiler.lowering.nodes.matmul import STAGES, WITH_OPERAND, Problem, epilogue, tail
from dfcompiler.lowering.symbolic import ceil_div, symbol, text

# Bytes of a block of A that stays in the L2 while panels pass it, and its most and least rows.
BLOCK_BYTES, MOST_ROWS, LEAST_ROWS = 1 << 20, 256, 128


@library.node
class MatMulBf16(nodes.LibraryNode):
    """C = epilogue(A·B) over connectors ``_a``, ``_b`` → ``_o``.

    A is [..., M, K] of bfloat16; B is packed, [ceil(N / panel), ceil(K / 2), panel, 2] of bfloat16;
    C is of float or bfloat16. Stage i of the epilogue computes in float and reads ``_e{i}``.

    Attributes:
        stages: names of the epilogue's stages, in order.
        packed: whether B is packed, as it always is; `Problem` asks.
        panel: columns of a panel, which are those of the register tile.
    """

    implementations: dict[str, Any] = {}  # noqa: RUF012
    default_implementation = None

    stages = properties.ListProperty(element_type=str)
    packed = properties.Property(dtype=bool, default=True)
    panel = properties.Property(dtype=int, default=1)

    def __init__(self, name: str, stages: Sequence[str], *, panel: int) -> None:
        operands = [f"_e{i}" for i, stage in enumerate(stages) if stage in WITH_OPERAND]
        inputs = dict.fromkeys(["_a", "_b", *operands])
        super().__init__(name, inputs=inputs, outputs={"_o": None})
        self.stages, self.panel = list(stages), panel


@library.register_expansion(MatMulBf16, "native")
class ExpandNative(ExpandTransformation):
    """A parallel map over blocks of rows and panels of columns; the tasklet calls the GEMM."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: MatMulBf16, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        problem = Problem.of(node, arrays)
        graph = nested_graph(node, arrays)
        rows = _block_rows(problem.depth)
        ranges = [
            *((f"_b{i}", extent) for i, extent in enumerate(problem.batch)),
            ("_block", ceil_div(problem.rows, rows)),
            ("_panel", ceil_div(problem.columns, node.panel)),
        ]
        code = _task(node, arrays, problem, rows)
        add_pointer_map(graph, "gemm_bf16", ranges, list(node.in_connectors), code)
        return in_place_of(node, graph)


def _block_rows(depth: Any) -> int:
    if not isinstance(depth, int):
        return LEAST_ROWS
    rows = BLOCK_BYTES // (2 * max(1, depth))
    return max(LEAST_ROWS, min(MOST_ROWS, rows // LEAST_ROWS * LEAST_ROWS))


def _task(node: MatMulBf16, arrays: Arrays, problem: Problem, rows: int) -> str:
    sizes = ", ".join(map(text, (rows, problem.rows, problem.columns, problem.depth)))
    a = f"dfc::gemm_bf16::Rows{{{problem.matrix('_a')}}}".replace(
        data("_a"), _halves("_a", const=True), 1
    )
    c = problem.rows_of("_o")
    if arrays["_o"].dtype == dtypes.bfloat16:
        c = c.replace(data("_o"), _halves("_o", const=False), 1)
    b, stages = _halves("_b", const=True), epilogue(node.stages, problem, "float")
    return (
        f'static_assert(dfc::gemm_bf16::NR == {node.panel}, "B is packed for another tile");\n'
        f"dfc::gemm_bf16::packed_task(_block, _panel, {sizes}, {a}, {b}, {c}, {stages});"
    )


def _halves(connector: str, *, const: bool) -> str:
    """The pointer behind a connector as the kernels' type of bfloat16."""
    return f"reinterpret_cast<{'const ' if const else ''}dfc::bf16*>({data(connector)})"


@library.register_expansion(MatMulBf16, "pure")
class ExpandPure(ExpandTransformation):
    """Maps over single elements, sums in memory: slow, and the oracle of the other expansion."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: MatMulBf16, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        shape = list(arrays["_o"].shape)
        graph.add_transient("sums", shape, dtypes.float32, storage=dtypes.StorageType.CPU_Heap)
        index = [symbol(f"_i{axis}") for axis in range(len(shape))]
        ranges = [(str(i), extent) for i, extent in zip(index, shape, strict=True)]
        k, column = symbol("_k"), index[-1]
        sums = ("sums", index)
        add_element_map(graph, "zero", ranges, {}, sums, "out = 0;")
        pair = [int_floor(column, node.panel), int_floor(k, 2), column % node.panel, k % 2]
        reads: dict[str, tuple[str, Sequence[Any]]] = {
            "a": ("_a", tail(arrays["_a"], [*index[:-1], k])),
            "b": ("_b", pair),
        }
        depth = ("_k", arrays["_a"].shape[-1])
        plus = "lambda x, y: x + y"
        code = "out = float(a) * float(b);"
        add_element_map(graph, "product", [*ranges, depth], reads, sums, code, wcr=plus)
        for i, stage in enumerate(node.stages):
            reads = {"a": sums}
            if stage in WITH_OPERAND:
                reads["b"] = (f"_e{i}", tail(arrays[f"_e{i}"], index))
            code = f"out = {STAGES[stage][1]};"
            add_element_map(graph, f"stage{i}", ranges, reads, sums, code)
        add_element_map(graph, "store", ranges, {"a": sums}, ("_o", index), "out = a;")
        return in_place_of(node, graph)
