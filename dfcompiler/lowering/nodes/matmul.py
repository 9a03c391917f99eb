"""The matrix product with an epilogue: C = epilogue(A·B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dace
from dace import library, properties
from dace.sdfg import nodes
from dace.symbolic import int_floor
from dace.transformation.transformation import ExpandTransformation
from sympy import Min

from dfcompiler.analysis.tiling import WHOLE_ROWS, block_count, block_splits
from dfcompiler.errors import UnsupportedError
from dfcompiler.lowering.nodes.expansion import (
    Arrays,
    add_element_map,
    add_pointer_map,
    broadcast_strides,
    connected_arrays,
    data,
    in_place_of,
    nested_graph,
    offset,
)
from dfcompiler.lowering.symbolic import ceil_div, is_static, product, symbol, text

# In `kernels/cpu/gemm.h`: columns of a task (WIDTH), depth of a step of k and rows of a block when
# an operator does not say (KC, MC).
SLICE_COLUMNS, STEP_DEPTH, BLOCK_ROWS = 64, 128, 256
# How a stage of the epilogue is called in `kernels/cpu/epilogue.h`, and what it computes.
STAGES = {
    "scale": ("Scale", "a * b"),
    "column_scale": ("ColumnScale", "a * b"),
    "bias": ("Bias", "a + b"),
    "add": ("AddResidual", "a + b"),
    "mul": ("MulResidual", "a * b"),
    "gelu": ("Gelu", "dfc::gelu(a)"),
    "gelu_tanh": ("GeluTanh", "dfc::gelu_tanh(a)"),
    "silu": ("Silu", "dfc::silu(a)"),
    "relu": ("Relu", "dfc::relu(a)"),
    "tanh": ("Tanh", "dfc::tanh(a)"),
    "sigmoid": ("Sigmoid", "dfc::sigmoid(a)"),
}
WITH_OPERAND = ("scale", "column_scale", "bias", "add", "mul")


@library.node
class MatMul(nodes.LibraryNode):
    """C = epilogue(A·B) over connectors ``_a``, ``_b`` → ``_o``.

    A is [..., M, K]; B is [..., K, N] with broadcast batch axes, or packed: [ceil(N / panel), K,
    panel] of floats or int8 codes. Stage i of the epilogue reads ``_e{i}``.

    Attributes:
        stages: names of the epilogue's stages, in order.
        packed: whether B is packed.
        panel: columns of a panel, which are those of the register tile.
        step_depth: steps of k whose slice of B stays in the L1, a multiple of 16.
        block_rows: most rows of one task.
        cores: how many tasks should have work at the same time.
    """

    implementations: dict[str, Any] = {}  # noqa: RUF012
    default_implementation = None

    stages = properties.ListProperty(element_type=str)
    packed = properties.Property(dtype=bool, default=False)
    panel = properties.Property(dtype=int, default=1)
    step_depth = properties.Property(dtype=int, default=STEP_DEPTH)
    block_rows = properties.Property(dtype=int, default=BLOCK_ROWS)
    cores = properties.Property(dtype=int, default=1)

    def __init__(
        self, name: str, stages: Sequence[str], *, packed: bool, panel: int, cores: int
    ) -> None:
        operands = [f"_e{i}" for i, stage in enumerate(stages) if stage in WITH_OPERAND]
        inputs = dict.fromkeys(["_a", "_b", *operands])
        super().__init__(name, inputs=inputs, outputs={"_o": None})
        self.stages, self.packed = list(stages), packed
        self.panel, self.cores = panel, cores


@dataclass(frozen=True)
class Problem:
    """Extents of a product, and the strides of its operands over (*batch, row, column)."""

    batch: tuple[Any, ...]
    rows: Any
    columns: Any
    depth: Any
    strides: Mapping[str, list[Any]]

    @staticmethod
    def of(node: MatMul, arrays: Arrays) -> Problem:
        """The problem of a node; batch axes join the rows where that is possible."""
        shape = list(arrays["_o"].shape)
        strides = {"_b": [0] * len(shape)}
        for connector, array in arrays.items():
            if connector in ("_a", "_o") or (connector == "_b" and not node.packed):
                strides[connector] = broadcast_strides(array, [*shape[:-2], *array.shape[-2:]])
        for i, stage in enumerate(node.stages):
            if stage in ("add", "mul"):
                strides[f"_e{i}"] = broadcast_strides(arrays[f"_e{i}"], shape)
        depth = arrays["_a"].shape[-1]
        return Problem(tuple(shape[:-2]), shape[-2], shape[-1], depth, strides).merged()

    def merged(self) -> Problem:
        """The innermost batch axis becomes rows while B does not vary along it."""
        if not self.batch:
            return self
        extent, rows = self.batch[-1], self.rows
        rest = {name: [*s[:-3], *s[-2:]] for name, s in self.strides.items()}
        if extent != 1:
            walked = [s for name, s in self.strides.items() if name != "_b"]
            if self.strides["_b"][-3] != 0 or any(s[-3] != s[-2] * rows for s in walked):
                return self
            rows = rows * extent
        return replace(self, batch=self.batch[:-1], rows=rows, strides=rest).merged()

    def matrix(self, connector: str) -> str:
        """Pointer, row stride and column stride of the matrix of one batch index, as C++."""
        strides = self.strides[connector]
        at = offset([f"_b{i}" for i in range(len(self.batch))], strides[:-2])
        return f"{data(connector)}{at}, {text(strides[-2])}, {text(strides[-1])}"

    def rows_of(self, connector: str) -> str:
        """Pointer and row stride of a matrix with contiguous columns, as C++."""
        if self.columns != 1 and self.strides[connector][-1] != 1:
            raise UnsupportedError(f"operand {connector} of a matrix product has strided columns")
        return self.matrix(connector).rsplit(", ", 1)[0]


@library.register_expansion(MatMul, "native")
class ExpandNative(ExpandTransformation):
    """A parallel map over blocks of rows and slices of columns; the tasklet calls the GEMM.

    Slices are the inner loop: consecutive tasks of a thread read the same block of A.
    """

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: MatMul, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        problem = Problem.of(node, arrays)
        graph = nested_graph(node, arrays)
        slices = ceil_div(problem.columns, SLICE_COLUMNS)
        others = product([*problem.batch, slices])
        blocks = row_blocks(problem.rows, node.block_rows, others, node.cores)
        ranges = [
            *((f"_b{i}", extent) for i, extent in enumerate(problem.batch)),
            ("_block", blocks),
            ("_slice", slices),
        ]
        code = _task(node, arrays, problem, blocks)
        add_pointer_map(graph, "gemm", ranges, list(node.in_connectors), code)
        return in_place_of(node, graph)


def row_blocks(rows: Any, most: int, others: Any, cores: int) -> Any:
    """Into how many blocks rows are split: of at most `most`, and tasks for every core.

    Args:
        rows: rows of the product.
        most: most rows of a block.
        others: tasks that there are for each block; unknown ones count as enough.
        cores: how many tasks should have work at the same time.
    """
    if not is_static(others):
        return ceil_div(rows, most)
    if is_static(rows):
        return block_count(int(rows), most, int(others), cores)
    splits = block_splits(int(others), cores)
    few = Min(splits, ceil_div(rows, WHOLE_ROWS)) if splits > 1 else 1
    return few * ceil_div(rows, most * few)


def _task(node: MatMul, arrays: Arrays, problem: Problem, blocks: Any) -> str:
    a_type, b_type = arrays["_a"].dtype.ctype, arrays["_b"].dtype.ctype
    tile = f"<{node.step_depth}, {node.block_rows}>"
    task = f"_block, {text(blocks)}, _slice"
    sizes = ", ".join(map(text, (problem.rows, problem.columns, problem.depth)))
    a = f"dfc::gemm::Rows<{a_type}>{{{problem.matrix('_a')}}}"
    rest = f"{problem.rows_of('_o')}, {epilogue(node.stages, problem, arrays['_o'].dtype.ctype)}"
    if not node.packed:
        b = f"dfc::gemm::Rows<{b_type}>{{{problem.matrix('_b')}}}"
        return f"dfc::gemm::strided_task{tile}({task}, {sizes}, {a}, {b}, {rest});"
    return (
        f'static_assert(dfc::gemm::NR == {node.panel}, "B is packed for another tile");\n'
        f"dfc::gemm::packed_task{tile}({task}, {sizes}, {a}, {data('_b')}, {rest});"
    )


def epilogue(names: Sequence[str], problem: Problem, dtype: str) -> str:
    """The C++ object of an epilogue whose stages compute in `dtype` and read ``_e{i}``."""
    stages = []
    for i, stage in enumerate(names):
        name, _ = STAGES[stage]
        if stage in ("add", "mul"):
            stages.append(f"dfc::{name}<{dtype}>{{{problem.rows_of(f'_e{i}')}}}")
        elif stage in WITH_OPERAND:
            stages.append(f"dfc::{name}<{dtype}>{{{data(f'_e{i}')}}}")
        else:
            stages.append(f"dfc::{name}{{}}")
    return f"dfc::Epilogue{{{', '.join(stages)}}}" if stages else "dfc::Epilogue<>{}"


@library.register_expansion(MatMul, "pure")
class ExpandPure(ExpandTransformation):
    """Maps over single elements: slow, and the oracle of the other expansions."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: MatMul, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        shape = list(arrays["_o"].shape)
        index = [symbol(f"_i{axis}") for axis in range(len(shape))]
        ranges = [(str(i), extent) for i, extent in zip(index, shape, strict=True)]
        k = symbol("_k")
        depth = arrays["_a"].shape[-1]
        add_element_map(graph, "zero", ranges, {}, ("_o", index), "out = 0;")
        reads = {
            "a": ("_a", tail(arrays["_a"], [*index[:-1], k])),
            "b": ("_b", _b_index(node, arrays["_b"], index, k)),
        }
        add_element_map(
            graph,
            "product",
            [*ranges, ("_k", depth)],
            reads,
            ("_o", index),
            "out = a * b;",
            wcr="lambda x, y: x + y",
        )
        for i, stage in enumerate(node.stages):
            reads = {"a": ("_o", index)}
            if stage in WITH_OPERAND:
                reads["b"] = (f"_e{i}", tail(arrays[f"_e{i}"], index))
            code = f"out = {STAGES[stage][1]};"
            add_element_map(graph, f"stage{i}", ranges, reads, ("_o", index), code)
        return in_place_of(node, graph)


def tail(array: dace.data.Array, index: Sequence[Any]) -> list[Any]:
    """The index into an operand that broadcasts to what `index` walks over."""
    last = index[len(index) - len(array.shape) :]
    return [0 if extent == 1 else i for i, extent in zip(last, array.shape, strict=True)]


def _b_index(node: MatMul, b: dace.data.Array, index: Sequence[Any], k: Any) -> list[Any]:
    if node.packed:
        return [int_floor(index[-1], node.panel), k, index[-1] % node.panel]
    return tail(b, [*index[:-2], k, index[-1]])
