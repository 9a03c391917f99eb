"""Shape arithmetic and indices of a graph are evaluated over symbols, not at run time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from dfcompiler.errors import InputError
from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import interpret
from dfcompiler.ir.dims import show_dim
from tests.onnx_models import (
    float_input,
    graph_model,
    integers,
    kinds,
    require_as_runtime,
    shapes,
    values,
)

INT64 = TensorProto.INT64


def shape_chain(target: list[onnx.NodeProto], **initializers: np.ndarray) -> onnx.ModelProto:
    """``Reshape(x, shape)`` with `shape` computed by `target` from ``s = Shape(x)``."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        *target,
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    return graph_model(nodes, {"x": float_input("B", "S", 12)}, ["y"], initializers)


FEEDS = [{"x": values(b, s, 12)} for b, s in ((1, 1), (2, 5), (3, 4))]


def test_heads_are_split_by_shape_arithmetic() -> None:
    program = require_as_runtime(
        shape_chain(
            [
                helper.make_node("Gather", ["s", "zero"], ["b"]),
                helper.make_node("Slice", ["s", "one", "two"], ["rows"]),
                helper.make_node("Unsqueeze", ["b", "axis"], ["b1"]),
                helper.make_node("Gather", ["s", "minus"], ["width"]),
                helper.make_node("Div", ["width", "three"], ["head"]),
                helper.make_node("Concat", ["b1", "rows", "three1", "head1"], ["shape"], axis=0),
                helper.make_node("Unsqueeze", ["head", "axis"], ["head1"]),
            ],
            zero=np.int64(0),
            one=integers(1),
            two=integers(2),
            axis=integers(0),
            minus=np.int64(-1),
            three=np.int64(3),
            three1=integers(3),
        ),
        *FEEDS,
    )
    assert shapes(program)["y"] == "B, S, 3, 4"
    assert kinds(program) == ["reshape"]


def test_the_size_of_a_tensor_and_a_rest_that_divides() -> None:
    program = require_as_runtime(
        shape_chain(
            [
                helper.make_node("Size", ["x"], ["n"]),
                helper.make_node("Div", ["n", "six"], ["rows"]),
                helper.make_node("Reshape", ["rows", "vector"], ["rows1"]),
                helper.make_node("Concat", ["rows1", "rest"], ["shape"], axis=0),
            ],
            six=np.int64(6),
            vector=integers(-1),
            rest=integers(-1),
        ),
        *FEEDS,
    )
    assert shapes(program)["y"] == "2*B*S, 6"


def test_a_choice_between_shapes() -> None:
    """Expand's idiom of older exporters: −1 in the asked shape takes the tensor's extent."""
    program = require_as_runtime(
        shape_chain(
            [
                helper.make_node("Equal", ["asked", "minus"], ["keep"]),
                helper.make_node("Where", ["keep", "s", "asked"], ["shape"]),
            ],
            asked=integers(-1, -1, 12),
            minus=integers(-1),
        ),
        *FEEDS,
    )
    assert shapes(program)["y"] == "B, S, 12"


def test_products_extremes_and_remainders_of_extents() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ReduceProd", ["s", "axis"], ["total"], keepdims=1),
        helper.make_node("Mod", ["total", "twelve"], ["rest"]),
        helper.make_node("Max", ["s", "twelve"], ["most"]),
        helper.make_node("Min", ["s", "twelve"], ["least"]),
        helper.make_node("Sub", ["most", "least"], ["span"]),
        helper.make_node("Concat", ["total", "rest", "span"], ["y"], axis=0),
    ]
    numbers = {"axis": integers(0), "twelve": integers(12)}
    model = graph_model(nodes, {"x": float_input("B", "S", 12)}, ["y"], numbers)
    feeds = [{"x": values(b, s, 12)} for b, s in ((1, 1), (2, 5), (3, 20))]
    require_as_runtime(model, *feeds)


def position_model(rows: int, offset: int, opset: int = 20) -> onnx.ModelProto:
    """Rows `offset`, `offset` + 1, … of a table, one for each column of ``ids``."""
    nodes = [
        helper.make_node("Shape", ["ids"], ["s"], start=1, end=2),
        helper.make_node("Add", ["s", "offset"], ["end"]),
        helper.make_node("Slice", ["positions", "offset", "end", "axis"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["y"]),
    ]
    initializers = {
        "offset": integers(offset),
        "axis": integers(1),
        "positions": np.arange(rows, dtype=np.int64)[None],
        "table": values(rows, 3),
    }
    return graph_model(nodes, {"ids": (INT64, ["B", "S"])}, ["y"], initializers, opset=opset)


@pytest.mark.parametrize(("rows", "offset"), [(40, 0), (40, 2), (512, 0), (514, 2)])
def test_a_position_table_bounds_the_sequence(rows: int, offset: int) -> None:
    feeds = [{"ids": np.zeros((2, s), np.int64)} for s in (1, 7, rows - offset)]
    program = require_as_runtime(position_model(rows, offset), *feeds)
    assert kinds(program) == ["slice", "reshape"]
    assert [c.name for c in program.weights] == ["table"]
    assert {s.name: s.maximum for s in program.symbols} == {"B": None, "S": rows - offset}
    with pytest.raises(InputError, match=f"the model takes {rows - offset} at most"):
        interpret(program, {"ids": np.zeros((1, rows - offset + 1), np.int64)})


def test_a_window_that_two_symbols_bound_is_gathered_and_checked() -> None:
    nodes = [
        helper.make_node("Shape", ["past"], ["p"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Add", ["p", "s"], ["end"]),
        helper.make_node("Slice", ["table", "p", "end"], ["y"]),
    ]
    inputs = {"x": float_input("S"), "past": float_input("P")}
    program = import_onnx(graph_model(nodes, inputs, ["y"], {"table": values(100)}))
    found = interpret(program, {"x": values(4), "past": values(7)})
    assert np.array_equal(found["y"], values(100)[7:11])
    assert "gather" in kinds(program)


def test_a_mesh_of_indices_is_no_gather() -> None:
    """Torch's ``mask[batch_index, key_index]`` with index ranges of the whole extents."""
    nodes = [
        helper.make_node("Shape", ["mask"], ["b1"], start=0, end=1),
        helper.make_node("Squeeze", ["b1"], ["b"]),
        helper.make_node("Shape", ["mask"], ["s1"], start=1, end=2),
        helper.make_node("Squeeze", ["s1"], ["s"]),
        helper.make_node("Range", ["zero", "b", "one"], ["rows"]),
        helper.make_node("Range", ["zero", "s", "one"], ["columns"]),
        helper.make_node("Unsqueeze", ["rows", "after"], ["r"]),
        helper.make_node("Unsqueeze", ["columns", "before"], ["c"]),
        helper.make_node("Max", ["r", "c"], ["both"]),
        helper.make_node("Shape", ["both"], ["joint"]),
        helper.make_node("Expand", ["r", "joint"], ["r2"]),
        helper.make_node("Expand", ["c", "joint"], ["c2"]),
        helper.make_node("Unsqueeze", ["r2", "last"], ["r3"]),
        helper.make_node("Unsqueeze", ["c2", "last"], ["c3"]),
        helper.make_node("Concat", ["r3", "c3"], ["index"], axis=-1),
        helper.make_node("GatherND", ["mask", "index"], ["y"]),
    ]
    initializers = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "after": integers(1, 2, 3),
        "before": integers(0, 1, 2),
        "last": integers(-1),
    }
    model = graph_model(nodes, {"mask": float_input("B", "S")}, ["y"], initializers)
    program = require_as_runtime(model, {"mask": values(2, 5)}, {"mask": values(1, 1)})
    assert kinds(program) == ["reshape"]
    assert shapes(program)["y"] == "B, 1, 1, S"


def test_comparisons_of_indices_that_are_always_true_disappear() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Squeeze", ["s"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["i"]),
        helper.make_node("GreaterOrEqual", ["i", "zero"], ["true"]),
        helper.make_node("Less", ["i", "n"], ["also"]),
        helper.make_node("And", ["true", "also"], ["both"]),
        helper.make_node("Where", ["both", "x", "other"], ["y"]),
    ]
    initializers = {"zero": np.int64(0), "one": np.int64(1), "other": np.float32(9)}
    program = import_onnx(graph_model(nodes, {"x": float_input("S")}, ["y"], initializers))
    assert kinds(program) == ["copy"]


def test_a_causal_mask_of_dynamic_size() -> None:
    nodes = [helper.make_node("Trilu", ["x"], ["y"], upper=0)]
    model = graph_model(nodes, {"x": float_input("B", "S", "S")}, ["y"])
    program = require_as_runtime(model, {"x": values(2, 4, 4)}, {"x": values(1, 7, 7)})
    assert "less_equal" in kinds(program)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 2, 1), (1, 1 << 62, 1), (-2, 1 << 62, 1), (0, -1, 1), (-1, -(1 << 62), -1), (3, 0, -2)],
)
def test_slices_of_a_dynamic_axis(start: int, end: int, step: int) -> None:
    nodes = [helper.make_node("Slice", ["x", "a", "b", "axis", "by"], ["y"])]
    numbers = {"a": start, "b": end, "axis": 1, "by": step}
    arrays = {name: integers(number) for name, number in numbers.items()}
    model = graph_model(nodes, {"x": float_input("B", "S")}, ["y"], arrays)
    require_as_runtime(model, *({"x": values(2, s)} for s in (2, 3, 4, 9)))


@pytest.mark.parametrize("size", [1, 4, 5, 9])
def test_a_split_of_a_dynamic_axis_into_equal_parts(size: int) -> None:
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], axis=0, num_outputs=2)]
    model = graph_model(nodes, {"x": float_input("S")}, ["a", "b"])
    found = interpret(import_onnx(model), {"x": values(size)})
    half = (size + 1) // 2
    assert np.array_equal(found["a"], values(size)[:half])
    assert np.array_equal(found["b"], values(size)[half:])


def test_tiles_and_pads_of_dynamic_size() -> None:
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["t"]),
        helper.make_node("Pad", ["t", "widths", "fill"], ["y"]),
    ]
    numbers = {"times": integers(2, 3), "widths": integers(1, 0, 0, 2), "fill": np.float32(7)}
    model = graph_model(nodes, {"x": float_input("B", "S")}, ["y"], numbers)
    require_as_runtime(model, {"x": values(2, 3)}, {"x": values(1, 5)})


def test_repeated_heads_of_grouped_queries() -> None:
    """Torch's repeat_kv: Unsqueeze, Expand, Reshape over dynamic batch and sequence."""
    nodes = [
        helper.make_node("Shape", ["k"], ["b"], start=0, end=1),
        helper.make_node("Shape", ["k"], ["s"], start=2, end=3),
        helper.make_node("Unsqueeze", ["k", "two"], ["k5"]),
        helper.make_node("Concat", ["b", "two", "three", "s", "width"], ["wide"], axis=0),
        helper.make_node("Expand", ["k5", "wide"], ["repeated"]),
        helper.make_node("Concat", ["b", "six", "s", "width"], ["heads"], axis=0),
        helper.make_node("Reshape", ["repeated", "heads"], ["y"]),
    ]
    numbers = {"two": integers(2), "three": integers(3), "six": integers(6), "width": integers(8)}
    model = graph_model(nodes, {"k": float_input("B", 2, "S", 8)}, ["y"], numbers)
    program = require_as_runtime(model, {"k": values(1, 2, 1, 8)}, {"k": values(3, 2, 5, 8)})
    assert kinds(program) == ["reshape", "expand", "reshape"]


def test_element_wise_operators_compute_before_they_broadcast() -> None:
    nodes = [
        helper.make_node("Shape", ["scores"], ["s"]),
        helper.make_node("Expand", ["mask", "s"], ["wide"]),
        helper.make_node("Where", ["wide", "zero", "low"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["y"]),
    ]
    inputs = {"scores": float_input("B", "S", "S"), "mask": (TensorProto.BOOL, ["B", 1, "S"])}
    numbers = {"zero": np.float32(0), "low": np.float32(-1e9)}
    program = require_as_runtime(
        graph_model(nodes, inputs, ["y"], numbers),
        {"scores": values(2, 3, 3), "mask": values(2, 1, 3) > 0},
    )
    bias = next(op for op in program.ops() if op.kind == "where")
    assert ", ".join(map(show_dim, bias.type.shape)) == "B, 1, S"
    assert "expand" not in kinds(program)


# ---------------------------------------------------------------------------- random arithmetic

OPERANDS = st.integers(0, 40)
BINARY = st.sampled_from(["Add", "Sub", "Mul", "Div", "Mod", "Min", "Max"])
STEPS = st.lists(st.tuples(BINARY, OPERANDS, OPERANDS), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS, st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=2, max_size=3))
def test_random_arithmetic_on_extents(
    steps: list[tuple[str, int, int]], sizes: list[tuple[int, int]]
) -> None:
    """Extents and constants combined at random give what ONNX's reference gives."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["v0"]),
        helper.make_node("Gather", ["s", "one"], ["v1"]),
        helper.make_node("Identity", ["three"], ["v2"]),
    ]
    for number, (kind, left, right) in enumerate(steps, 3):
        a, b = f"v{left % number}", f"v{right % number}"
        if kind in ("Div", "Mod"):  # by something positive, as shapes are
            nodes.append(helper.make_node("Max", [b, "one"], [f"d{number}"]))
            nodes.append(helper.make_node("Abs", [a], [f"n{number}"]))
            a, b = f"n{number}", f"d{number}"
        nodes.append(helper.make_node(kind, [a, b], [f"v{number}"]))
    last = f"v{len(steps) + 2}"
    numbers = {"zero": np.int64(0), "one": np.int64(1), "three": np.int64(3)}
    model = graph_model(nodes, {"x": float_input("B", "S")}, [last], numbers)
    program, reference = import_onnx(model), ReferenceEvaluator(model)
    for size in sizes:
        feed = {"x": values(*size)}
        assert interpret(program, feed)[last] == reference.run(None, feed)[0]


INDEX_STEPS = st.lists(
    st.tuples(st.sampled_from(["Add", "Sub", "Mul", "Slice", "Less", "Transpose"]), OPERANDS),
    max_size=5,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(INDEX_STEPS, st.integers(1, 7), st.integers(1, 7))
def test_random_arithmetic_on_indices(
    steps: list[tuple[str, int]], rows: int, columns: int
) -> None:
    """Two ranges, as a column and a row, combined at random, sliced and compared."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Gather", ["s", "one"], ["m"]),
        helper.make_node("Range", ["zero", "n", "one"], ["i"]),
        helper.make_node("Range", ["one", "m", "one"], ["j"]),
        helper.make_node("Unsqueeze", ["i", "axis1"], ["column"]),
        helper.make_node("Unsqueeze", ["j", "axis0"], ["row"]),
        helper.make_node("Add", ["column", "row"], ["v0"]),
    ]
    numbers = {"zero": np.int64(0), "one": np.int64(1), "axis0": integers(0), "axis1": integers(1)}
    last = "v0"
    for number, (kind, operand) in enumerate(steps, 1):
        other = f"c{number}"
        numbers[other] = np.int64(operand % 5)
        if kind in ("Add", "Sub", "Mul"):
            nodes.append(helper.make_node(kind, [last, other], [f"v{number}"]))
        elif kind == "Slice":
            numbers[other] = integers(operand % 2)
            numbers[f"e{number}"] = integers(1 << 40)
            inputs = [last, other, f"e{number}", "axis0"]
            nodes.append(helper.make_node("Slice", inputs, [f"v{number}"]))
        elif kind == "Transpose":
            nodes.append(helper.make_node("Transpose", [last], [f"v{number}"]))
        else:
            nodes.append(helper.make_node("Less", [last, other], [f"b{number}"]))
            nodes.append(helper.make_node("Cast", [f"b{number}"], [f"v{number}"], to=INT64))
        last = f"v{number}"
    model = graph_model(nodes, {"x": float_input("B", "S")}, [last], numbers)
    program, reference = import_onnx(model), ReferenceEvaluator(model)
    feed = {"x": values(rows + 5, columns + 5)}
    expected = reference.run(None, feed)[0]
    found = interpret(program, feed)[last]
    assert np.array_equal(found, expected)
