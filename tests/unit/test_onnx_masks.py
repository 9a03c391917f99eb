"""Masks of torch's ONNX exporter: a guarded minimum is minus infinity, any other is a number."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from torch import from_numpy, inf
from torch.nn.functional import softmax

from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import Program, interpret
from tests.onnx_models import graph_model
from tests.tolerances import assert_close

MINIMUM = float(np.finfo(np.float32).min)
VISIBLE = np.array([[True, False, True], [False, False, False]])
SCORES = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)


def masked_softmax(fill: float = MINIMUM, *, guard: bool = True, extra: bool = False) -> Program:
    nodes = [
        helper.make_node("Where", ["visible", "zero", "fill"], ["mask"]),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Add", ["scores", "wide"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["weights"], axis=-1),
    ]
    outputs = ["weights"]
    if guard:
        nodes += [
            helper.make_node("IsNaN", ["weights"], ["nan"]),
            helper.make_node("Where", ["nan", "zero", "weights"], ["guarded"]),
        ]
        outputs = ["guarded"]
    if extra:
        nodes.append(helper.make_node("Relu", ["mask"], ["other"]))
        outputs.append("other")
    numbers = {"zero": np.float32(0), "fill": np.float32(fill)}
    inputs = {
        "scores": (TensorProto.FLOAT, (1, 2, 3)),
        "visible": (TensorProto.BOOL, (2, 3)),
    }
    initializers = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
    initializers["axes"] = np.array([0], np.int64)
    return import_onnx(graph_model(nodes, inputs, outputs, initializers))


def fills(program: Program) -> set[float]:
    constants = {op.result: op.attr("value") for op in program.ops() if op.kind == "constant"}
    return {constants[name] for op in program.ops() for name in op.inputs if name in constants}


def test_guarded_minimum_gives_what_torch_gives() -> None:
    program = masked_softmax()
    assert fills(program) == {0.0, -inf}
    found = interpret(program, {"scores": SCORES[None], "visible": VISIBLE})["guarded"]
    scores = from_numpy(SCORES).masked_fill(~from_numpy(VISIBLE), -inf)
    expected = softmax(scores, -1).nan_to_num(0.0)
    assert_close(found[0], expected.numpy())


@pytest.mark.parametrize(
    "program",
    [masked_softmax(guard=False), masked_softmax(-1e4), masked_softmax(extra=True)],
    ids=["no guard", "no minimum", "read elsewhere"],
)
def test_other_masks_stay_numbers(program: Program) -> None:
    assert -inf not in fills(program)
    output = program.outputs[0].name
    found = interpret(program, {"scores": SCORES[None], "visible": VISIBLE})[output]
    assert found[0, 1].sum() == pytest.approx(1)
