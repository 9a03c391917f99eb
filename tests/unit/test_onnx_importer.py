"""What the importer makes of single constructs: functions, constants, symbols, weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfcompiler.errors import InputError, UnsupportedError
from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import DType, interpret
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


# -------------------------------------------------------------------- signature and symbols


def test_names_types_and_order_of_the_signature_are_kept() -> None:
    nodes = [
        helper.make_node("Relu", ["in.0"], ["out:b"], name="relu"),
        helper.make_node("Neg", ["out:b"], ["out a"], name="neg"),
    ]
    model = graph_model(nodes, {"in.0": float_input("batch", 3)}, ["out a", "out:b"])
    program = import_onnx(model)
    assert [c.name for c in program.inputs] == ["in.0"]
    assert [c.name for c in program.outputs] == ["out a", "out:b"]
    assert [op.source for op in program.ops()][:2] == ["relu", "neg"]
    x = values(2, 3)
    found = interpret(program, {"in.0": x})
    assert np.array_equal(found["out a"], -np.maximum(x, 0))
    assert np.array_equal(found["out:b"], np.maximum(x, 0))


def test_an_input_or_a_weight_that_is_returned_as_it_is() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("Identity", ["w"], ["z"]),
    ]
    model = graph_model(nodes, {"x": float_input("B")}, ["y", "z", "w"], {"w": values(20)})
    found = interpret(import_onnx(model), {"x": values(5)})
    assert np.array_equal(found["y"], values(5))
    assert np.array_equal(found["z"], values(20))
    assert np.array_equal(found["w"], values(20))


def test_dynamic_extents_become_symbols() -> None:
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=1)
    inputs = {"a": float_input(None, "seq len", 4), "b": float_input(None, "1st", 4)}
    program = import_onnx(graph_model([node], inputs, ["y"]))
    assert shapes(program) == {
        "a": "d0, seq_len, 4",
        "b": "d0, d_1st, 4",
        "y": "d0, d_1st + seq_len, 4",
    }


def test_extents_that_an_operator_forces_equal_become_one_symbol() -> None:
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    inputs = {"a": float_input("B", "K"), "b": float_input("B2", "K2")}
    program = import_onnx(graph_model(nodes, inputs, ["y"], {"w": values(3, 4)}))
    assert shapes(program) == {"a": "B, 3", "b": "B, 3", "w": "3, 4", "y": "B, 4"}
    with pytest.raises(InputError, match="a has shape"):
        interpret(program, {"a": values(2, 5), "b": values(2, 5)})


def test_an_extent_that_must_be_a_sum_becomes_one() -> None:
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["keys"], axis=0),
        helper.make_node("Add", ["keys", "mask"], ["y"]),
    ]
    inputs = {"x": float_input("S"), "past": float_input("P"), "mask": float_input("T")}
    program = import_onnx(graph_model(nodes, inputs, ["y"]))
    assert shapes(program)["mask"] == "P + S"
    found = interpret(program, {"x": values(2), "past": values(3), "mask": values(5)})
    assert found["y"].shape == (5,)
    with pytest.raises(InputError, match="mask has shape"):
        interpret(program, {"x": values(2), "past": values(3), "mask": values(6)})


def test_a_dim_param_may_be_an_expression_over_others() -> None:
    node = helper.make_node("Relu", ["mask"], ["y"])
    inputs = {"x": float_input("S"), "past": float_input("P"), "mask": float_input("P + S")}
    program = import_onnx(graph_model([node], inputs, ["y"]))
    assert shapes(program)["y"] == "P + S"


@pytest.mark.parametrize("name", ["lambda", "class", "a-b", "é", "S"])
def test_every_dim_param_becomes_an_identifier_that_the_text_form_keeps(name: str) -> None:
    from dfcompiler.ir import parse, show

    node = helper.make_node("Relu", ["x"], ["y"])
    program = import_onnx(graph_model([node], {"x": float_input(name, 2)}, ["y"]))
    assert program.symbols[0].name.isidentifier()
    assert parse(show(program)) == program


# ------------------------------------------------------------------------ constants, functions


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": numpy_helper.from_array(values(2, 3))}, values(2, 3)),
        ({"value_float": 1.5}, np.float32(1.5)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
        ({"value_int": 7}, np.int64(7)),
        ({"value_ints": [7, 8, 9]}, integers(7, 8, 9)),
    ],
)
def test_constants_in_all_forms(attribute: dict[str, object], expected: np.ndarray) -> None:
    node = helper.make_node("Constant", [], ["y"], **attribute)
    found = interpret(import_onnx(graph_model([node], {}, ["y"])), {})["y"]
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def test_a_constant_string_is_refused() -> None:
    node = helper.make_node("Constant", [], ["y"], value_string="text")
    with pytest.raises(UnsupportedError, match="value_string"):
        import_onnx(graph_model([node], {}, ["y"]))


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BOOL])
def test_weights_of_every_element_type(dtype: DType, tmp_path: Path) -> None:
    weight = np.arange(12).astype(dtype.numpy).reshape(3, 4)
    node = helper.make_node("Identity", ["w"], ["y"])
    path = tmp_path / "m.onnx"
    onnx.save(graph_model([node], {}, ["y"], {"w": weight}), path)
    found = interpret(import_onnx(path), {})["y"]
    assert found.dtype == dtype.numpy
    assert np.array_equal(found.astype(np.float64), weight.astype(np.float64))


def test_an_initializer_that_is_also_an_input_is_a_weight() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    inputs = {"x": float_input("B", 4), "w": float_input(4, 5)}
    program = import_onnx(graph_model([node], inputs, ["y"], {"w": values(4, 5)}))
    assert [c.name for c in program.inputs] == ["x"]
    assert [c.name for c in program.weights] == ["w"]


def test_weights_of_a_file_are_views_of_it(tmp_path: Path) -> None:
    weight = values(64, 64)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = tmp_path / "m.onnx"
    model = graph_model([node], {"x": float_input("B", 64)}, ["y"], {"w": weight, "dead": weight})
    onnx.save(model, path)
    program = import_onnx(path)
    assert list(program.data) == ["w"]
    data = program.data["w"]
    assert np.array_equal(data, weight)
    assert not data.flags.owndata
    assert not data.flags.writeable
    while isinstance(data, np.ndarray):
        data = data.base
    assert data.obj.size() == path.stat().st_size  # the mapping of the file


def test_weights_in_files_beside_the_model(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = graph_model([node], {"x": float_input("B", 4)}, ["y"], {"w": values(4, 5)})
    path = tmp_path / "m.onnx"
    options = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save_model(model, path, **options)
    assert (tmp_path / "m.data").exists()
    found = interpret(import_onnx(path), {"x": values(3, 4)})
    np.testing.assert_allclose(found["y"], values(3, 4) @ values(4, 5), rtol=1e-6)


def test_a_model_written_field_by_field_is_read_like_any_other(tmp_path: Path) -> None:
    """Protobuf may repeat the graph and merge the parts; weights keep their places."""
    node = helper.make_node("Sub", ["a", "b"], ["y"])
    a, b = values(40, 40), np.float32(2) * values(40, 40)
    model = graph_model([node], {}, ["y"], {"a": a, "b": b})
    parts = [onnx.ModelProto() for _ in range(2)]
    parts[0].CopyFrom(model)
    del parts[0].graph.initializer[1]
    parts[1].graph.initializer.append(model.graph.initializer[1])
    path = tmp_path / "m.onnx"
    path.write_bytes(b"".join(part.SerializeToString() for part in parts))
    assert np.array_equal(interpret(import_onnx(path), {})["y"], a - b)


def scaled_block() -> onnx.FunctionProto:
    """``relu(x) * scale + shift``: `scale` has a default, `shift` has none."""
    body = [
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Constant", [], ["s"], name="s"),
        helper.make_node("Constant", [], ["t"], name="t"),
        helper.make_node("Mul", ["r", "s"], ["m"], name="mul"),
        helper.make_node("Add", ["m", "t"], ["b"], name="add"),
    ]
    for node, name in ((body[1], "scale"), (body[2], "shift")):
        kind = onnx.AttributeProto.FLOAT
        reference = onnx.AttributeProto(name="value_float", ref_attr_name=name, type=kind)
        node.attribute.append(reference)
    return helper.make_function(
        "local",
        "Block",
        ["a"],
        ["b"],
        body,
        [helper.make_opsetid("", 20)],
        attributes=["shift"],
        attribute_protos=[helper.make_attribute("scale", 2.0)],
    )


def test_functions_of_the_model_are_inlined_with_their_attributes() -> None:
    nodes = [
        helper.make_node("Block", ["x"], ["y"], name="one", domain="local", shift=1.0),
        helper.make_node("Block", ["y"], ["z"], name="two", domain="local", shift=3.0, scale=0.5),
    ]
    model = graph_model(
        nodes, {"x": float_input("B", 3)}, ["z"], functions=[scaled_block()], domains=["local"]
    )
    program = require_as_runtime(model, {"x": values(2, 3)}, {"x": values(5, 3)})
    sources = [op.source for op in program.ops() if op.kind != "constant"]
    assert sources == ["one/relu", "one/mul", "one/add", "two/relu", "two/mul", "two/add"]


def test_functions_that_call_functions() -> None:
    inner = [helper.make_node("Block", ["p"], ["q"], name="in", domain="local", shift=1.0)]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    outer = helper.make_function("local", "Outer", ["p"], ["q"], inner, imports)
    node = helper.make_node("Outer", ["x"], ["y"], name="call", domain="local")
    model = graph_model(
        [node],
        {"x": float_input("B", 3)},
        ["y"],
        functions=[scaled_block(), outer],
        domains=["local"],
    )
    program = require_as_runtime(model, {"x": values(2, 3)})
    assert {op.source for op in program.ops()} > {"call/in/relu", "call/in/mul"}


def test_nodes_in_any_order() -> None:
    nodes = [
        helper.make_node("Neg", ["b"], ["y"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Exp", ["x"], ["a"]),
    ]
    program = import_onnx(graph_model(nodes, {"x": float_input("B")}, ["y"]))
    assert kinds(program) == ["exp", "relu", "neg"]


# ------------------------------------------------------------------------------- big operators


def test_patches_of_an_image() -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], strides=[4, 4])
    initializers = {"w": values(5, 3, 4, 4), "b": values(5)}
    model = graph_model([node], {"x": float_input("B", 3, 9, 8)}, ["y"], initializers)
    program = require_as_runtime(model, {"x": values(1, 3, 9, 8)}, {"x": values(4, 3, 9, 8)})
    assert "matmul" in kinds(program)


@pytest.mark.parametrize(
    ("equation", "a", "b"),
    [
        ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
        ("bqk,bkd->bqd", (2, 4, 6), (2, 6, 5)),
        ("ij,jk", (3, 4), (4, 5)),
        ("i,j->ij", (3,), (4,)),
        ("bij,bij->b", (2, 3, 4), (2, 3, 4)),
        ("bij,jk->bki", (2, 3, 4), (4, 5)),
    ],
)
def test_einsum(equation: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    node = helper.make_node("Einsum", ["a", "b"], ["y"], equation=equation)
    model = graph_model([node], {"a": float_input(*a), "b": float_input(*b)}, ["y"])
    require_as_runtime(model, {"a": values(*a), "b": values(*b)})


@pytest.mark.parametrize("opset", range(13, 24))
def test_every_supported_operator_set(opset: int) -> None:
    """Axes move from attributes to inputs between sets 13 and 18."""
    early = opset < 18
    axes = {"axes": [-1]} if early else {}
    mean = helper.make_node("ReduceMean", ["x"] if early else ["x", "axis"], ["m"], **axes)
    parts = {} if early else {"num_outputs": 2}
    nodes = [
        mean,
        helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("Split", ["c"], ["l", "r"], axis=1, **parts),
        helper.make_node("Softmax", ["l"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "r"], ["q"]),
        helper.make_node("Unsqueeze", ["q", "axis"], ["y"]),
    ]
    inputs = {"x": float_input(3, 6)}
    model = graph_model(nodes, inputs, ["y"], {"axis": integers(-1)}, opset=opset)
    require_as_runtime(model, {"x": values(3, 6)})


def test_quantized_weights_are_dequantized_along_their_axis() -> None:
    codes = np.arange(-60, 60, dtype=np.int8).reshape(4, 30)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    initializers = {"codes": codes, "scale": values(30), "zero": np.arange(30, dtype=np.int8)}
    model = graph_model(nodes, {"x": float_input("B", 4)}, ["y"], initializers)
    program = require_as_runtime(model, {"x": values(3, 4)})
    assert "dequantize" in kinds(program)
