"""Broken, hostile and unsupported models: one clear sentence each, never a crash."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from dfcompiler.errors import ModelError, UnsupportedError, UsageError
from dfcompiler.importers.onnx import import_onnx
from tests.onnx_models import float_input, graph_model

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
LARGE = np.arange(4096, dtype=np.float32).reshape(64, 64)


def matmul_model(weight: np.ndarray = LARGE) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return graph_model([node], {"x": float_input("B", weight.shape[0])}, ["y"], {"w": weight})


def saved(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


# ------------------------------------------------------------------------------------- files


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        import_onnx(tmp_path / "none.onnx")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a directory"):
        import_onnx(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    with pytest.raises(ModelError, match="is empty"):
        import_onnx(path)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(64), b"hello, this is no model\n" * 9, b"\xff" * 99, b"\x00"],
    ids=["image", "text", "ones", "zero"],
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is no ONNX model"):
        import_onnx(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = saved(tmp_path, matmul_model())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"is no ONNX model, or only a part of one: the field"):
        import_onnx(path)


def test_every_truncation_and_every_flipped_byte_gives_a_sentence(tmp_path: Path) -> None:
    data = saved(tmp_path, matmul_model(WEIGHT)).read_bytes()
    path, choose = tmp_path / "broken.onnx", random.Random(0)
    broken = [data[:size] for size in range(1, len(data))]
    for position in range(len(data)):
        for _ in range(3):
            flipped = bytearray(data)
            flipped[position] ^= 1 << choose.randrange(8)
            broken.append(bytes(flipped))
    sentences = []
    for content in broken:
        path.write_bytes(content)
        try:
            import_onnx(path)
        except (ModelError, UnsupportedError) as error:
            sentences.append(error.message)
    assert len(sentences) > 300
    assert max(map(len, sentences)) < 400


# --------------------------------------------------------------------------------- operators


def test_all_missing_operators_are_listed_at_once() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("MaxUnpool", ["a", "a"], ["b"], name="pool_1", kernel_shape=[2]),
        helper.make_node("MaxUnpool", ["b", "a"], ["c"], name="pool_2", kernel_shape=[2]),
        helper.make_node("Fancy", ["c"], ["y"], name="fancy", domain="com.example"),
    ]
    model = graph_model(nodes, {"x": float_input("B", 4)}, ["y"], domains=["com.example"])
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(model)
    assert caught.value.message == (
        "2 operators of the model cannot be compiled: ai.onnx::MaxUnpool, com.example::Fancy"
    )
    assert caught.value.where == (
        "ai.onnx::MaxUnpool × 2: pool_1, pool_2",
        "com.example::Fancy × 1: fancy",
    )


def test_a_missing_operator_inside_a_function_is_listed_with_its_caller() -> None:
    body = [helper.make_node("Fancy", ["a"], ["b"], name="inner", domain="com.example")]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    function = helper.make_function("local", "Block", ["a"], ["b"], body, imports)
    node = helper.make_node("Block", ["x"], ["y"], name="call", domain="local")
    model = graph_model(
        [node], {"x": float_input(4)}, ["y"], functions=[function], domains=["local"]
    )
    with pytest.raises(UnsupportedError) as caught:
        import_onnx(model)
    assert caught.value.where == ("com.example::Fancy × 1: call/inner",)


def test_a_subgraph_is_listed_as_missing() -> None:
    inner = helper.make_graph([], "then", [], [onnx.ValueInfoProto(name="x")])
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=inner, else_branch=inner)
    model = graph_model([node], {"c": (TensorProto.BOOL, []), "x": float_input(4)}, ["y"])
    with pytest.raises(UnsupportedError, match=r"ai\.onnx::If"):
        import_onnx(model)


@pytest.mark.parametrize("opset", [0, 7, 12, 99])
def test_an_operator_set_that_is_not_understood(opset: int) -> None:
    model = matmul_model()
    model.opset_import[0].version = opset
    with pytest.raises(UnsupportedError, match="13 to 28 can be compiled"):
        import_onnx(model)


def test_a_model_without_operator_set() -> None:
    model = matmul_model()
    del model.opset_import[:]
    with pytest.raises(ModelError, match="it lacks an operator set"):
        import_onnx(model)


def test_an_operator_that_its_operator_set_does_not_have() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="late")
    model = graph_model([node], {"x": float_input(4)}, ["y"], opset=17)
    with pytest.raises(ModelError, match="operator set 17 has no Gelu"):
        import_onnx(model)


def test_a_shape_that_is_known_only_at_run_time() -> None:
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="cut")
    inputs = {"x": float_input("B", 4), "s": (TensorProto.INT64, [2])}
    with pytest.raises(UnsupportedError, match="takes its shape from the elements of s") as caught:
        import_onnx(graph_model([node], inputs, ["y"]))
    assert caught.value.where == ("node cut (Reshape)",)


def test_a_convolution_with_overlapping_windows() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    weight = np.zeros((2, 3, 3, 3), np.float32)
    model = graph_model([node], {"x": float_input(1, 3, 8, 8)}, ["y"], {"w": weight})
    with pytest.raises(UnsupportedError, match="overlapping"):
        import_onnx(model)


def test_element_types_without_arithmetic() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    for number in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.INT4):
        with pytest.raises(UnsupportedError, match="input x has elements of type"):
            import_onnx(graph_model([node], {"x": (number, [4])}, ["y"]))


def test_an_input_that_is_no_tensor() -> None:
    model = matmul_model()
    model.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    )
    with pytest.raises(UnsupportedError, match="input x is a sequence"):
        import_onnx(model)


# ------------------------------------------------------------------------ names, order, shapes


def test_a_name_defined_twice() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="first"),
        helper.make_node("Neg", ["x"], ["y"], name="second"),
    ]
    with pytest.raises(ModelError, match="y is defined twice") as caught:
        import_onnx(graph_model(nodes, {"x": float_input(4)}, ["y"]))
    assert caught.value.where == ("node second (Neg)",)


def test_two_initializers_of_one_name() -> None:
    model = matmul_model()
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(ModelError, match="two initializers have the same name"):
        import_onnx(model)


@pytest.mark.parametrize("which", ["input", "output"])
def test_two_inputs_or_outputs_of_one_name(which: str) -> None:
    model = matmul_model()
    entries = getattr(model.graph, which)
    entries.append(entries[0])
    with pytest.raises(ModelError, match=f"two {which}s are called"):
        import_onnx(model)


def test_a_name_that_nothing_defines() -> None:
    node = helper.make_node("Add", ["x", "ghost"], ["y"], name="sum")
    with pytest.raises(ModelError, match="nothing defines ghost") as caught:
        import_onnx(graph_model([node], {"x": float_input(4)}, ["y"]))
    assert caught.value.where == ("node sum (Add)",)


def test_an_output_that_nothing_defines() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    with pytest.raises(ModelError, match="nothing defines z, an output"):
        import_onnx(graph_model([node], {"x": float_input(4)}, ["z"]))


def test_a_cycle() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="forth"),
        helper.make_node("Relu", ["a"], ["b"], name="back"),
    ]
    with pytest.raises(ModelError, match="a node depends on its own result") as caught:
        import_onnx(graph_model(nodes, {"x": float_input(4)}, ["b"]))
    assert caught.value.where[0] in ("node forth (Add)", "node back (Relu)")


def test_a_function_that_calls_itself() -> None:
    body = [helper.make_node("Block", ["a"], ["b"], name="again", domain="local")]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Block", ["a"], ["b"], body, imports)
    node = helper.make_node("Block", ["x"], ["y"], name="call", domain="local")
    model = graph_model(
        [node], {"x": float_input(4)}, ["y"], functions=[function], domains=["local"]
    )
    with pytest.raises(ModelError, match="function Block calls itself"):
        import_onnx(model)


def test_inner_extents_that_differ() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    model = graph_model([node], {"x": float_input("B", 5)}, ["y"], {"w": WEIGHT})
    with pytest.raises(ModelError, match="product: extents 5 and 3 differ") as caught:
        import_onnx(model)
    assert caught.value.where == ("node product (MatMul)",)


def test_shapes_that_do_not_broadcast() -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"], name="sum")
    model = graph_model([node], {"x": float_input("B", 5)}, ["y"], {"w": WEIGHT})
    with pytest.raises(ModelError, match="sum: extents 5 and 4 differ"):
        import_onnx(model)


@pytest.mark.parametrize("dims", [["B", 5], ["B", 4, 1]])
def test_a_declared_output_that_contradicts_the_nodes(dims: list[int | str]) -> None:
    model = matmul_model(WEIGHT)
    declared = helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)
    model.graph.output[0].CopyFrom(declared)
    with pytest.raises(ModelError, match=r"output y is declared \[B, .*nodes give \[B, 4\]"):
        import_onnx(model)


def test_a_declared_element_type_that_contradicts_the_nodes() -> None:
    model = matmul_model(WEIGHT)
    declared = helper.make_tensor_value_info("y", TensorProto.INT64, ["B", 4])
    model.graph.output[0].CopyFrom(declared)
    with pytest.raises(ModelError, match="output y is declared i64, but the nodes give f32"):
        import_onnx(model)


def test_an_attribute_of_the_wrong_type_and_one_that_does_not_exist() -> None:
    wrong = helper.make_node("Softmax", ["x"], ["y"], name="soft", axis=1.5)
    with pytest.raises(ModelError, match="the attribute axis is not of type INT"):
        import_onnx(graph_model([wrong], {"x": float_input(4, 4)}, ["y"]))
    unknown = helper.make_node("Softmax", ["x"], ["y"], name="soft", dims=1)
    with pytest.raises(ModelError, match="Softmax has no attribute dims"):
        import_onnx(graph_model([unknown], {"x": float_input(4, 4)}, ["y"]))


def test_an_axis_out_of_range_and_a_missing_input() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], name="soft", axis=2)
    with pytest.raises(ModelError, match="soft: axis 2 is out of range for rank 2"):
        import_onnx(graph_model([node], {"x": float_input(4, 4)}, ["y"]))
    node = helper.make_node("Add", ["x"], ["y"], name="sum")
    with pytest.raises(ModelError, match="Add takes 2 to 2 inputs, found 1"):
        import_onnx(graph_model([node], {"x": float_input(4)}, ["y"]))
    node = helper.make_node("Add", ["x", ""], ["y"], name="sum")
    with pytest.raises(ModelError, match="sum: its input 1 is missing"):
        import_onnx(graph_model([node], {"x": float_input(4)}, ["y"]))


def test_an_initializer_with_too_few_values() -> None:
    model = matmul_model(WEIGHT)
    model.graph.initializer[0].dims[0] = 4
    with pytest.raises(ModelError, match=r"w has 48 bytes; its shape \[4, 4\] needs 64"):
        import_onnx(model)


# ------------------------------------------------------------------------------ external data


def external_model(tmp_path: Path, edit: Callable[[dict[str, str]], None]) -> Path:
    """A model whose weight lies in ``data/weights.bin``, its reference changed by `edit`."""
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "weights.bin").write_bytes(bytes(64) + WEIGHT.tobytes())
    (tmp_path / "outside.bin").write_bytes(bytes(64) + WEIGHT.tobytes())
    entries = {"location": "data/weights.bin", "offset": "64", "length": "48"}
    edit(entries)
    model = matmul_model(WEIGHT)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return saved(folder, model)


def test_external_data_is_mapped(tmp_path: Path) -> None:
    program = import_onnx(external_model(tmp_path, lambda entries: None))
    assert np.array_equal(program.data["w"], WEIGHT)
    assert not program.data["w"].flags.owndata


@pytest.mark.parametrize(
    "location",
    [
        "../outside.bin",
        "data/../../outside.bin",
        "/etc/passwd",
        "..\\outside.bin",
        "C:\\outside.bin",
        "",
        "data/\0.bin",
    ],
)
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    path = external_model(tmp_path, lambda entries: entries.update(location=location))
    with pytest.raises(ModelError, match="is not a path inside the model's folder") as caught:
        import_onnx(path)
    assert caught.value.where == ("initializer w",)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_external_data_that_a_link_leads_outside(tmp_path: Path, linked: str) -> None:
    path = external_model(tmp_path, lambda entries: entries.update(location="link/outside.bin"))
    if linked == "folder":
        os.symlink(tmp_path, path.parent / "link")
    else:
        (path.parent / "link").mkdir()
        os.symlink(tmp_path / "outside.bin", path.parent / "link" / "outside.bin")
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        import_onnx(path)


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    path = external_model(tmp_path, lambda entries: entries.update(location="data/none.bin"))
    with pytest.raises(ModelError, match=r"external data data/none\.bin is missing"):
        import_onnx(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"offset": "65"}, "has 112 bytes; bytes 65 to 113 are needed"),
        ({"length": "47"}, "has 47 bytes; its type needs 48"),
        ({"offset": "-1"}, "'-1' of its external data is no number"),
        ({"offset": "ten"}, "'ten' of its external data is no number"),
    ],
)
def test_external_data_that_is_too_short(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    path = external_model(tmp_path, lambda entries: entries.update(changes))
    with pytest.raises(ModelError, match=sentence):
        import_onnx(path)


def test_external_data_of_a_model_in_memory(tmp_path: Path) -> None:
    path = external_model(tmp_path, lambda entries: None)
    with pytest.raises(ModelError, match="the model was not given as a file"):
        import_onnx(onnx.load(path, load_external_data=False))


def test_external_data_of_a_constant_node(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(WEIGHT, "c")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside.bin")
    node = helper.make_node("Constant", [], ["y"], name="fixed")
    node.attribute.append(AttributeProto(name="value", t=tensor, type=AttributeProto.TENSOR))
    with pytest.raises(ModelError, match="external"):
        import_onnx(saved(tmp_path, graph_model([node], {}, ["y"])))
