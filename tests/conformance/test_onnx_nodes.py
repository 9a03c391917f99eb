"""ONNX's own node tests: every case is either right or refused, and the right ones are listed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import Program, interpret
from dfcompiler.ir.dims import free_symbols

LIST = Path(__file__).parent / "onnx_node_cases.txt"
"""The cases that give the shipped outputs, one a line, for onnx==1.23.2."""

DYNAMIC = 516
"""How many of them, leaving out expanded functions, also do so with every extent dynamic."""

Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute infinities on purpose
        from onnx.backend.test.loader import load_model_tests

        return list(load_model_tests(kind="node"))


def test_supported_cases_give_the_shipped_outputs(cases: list[Any]) -> None:
    right, wrong = [], {}
    for case in cases:
        try:
            program = imported(case)
        except UnsupportedError:
            continue
        difference = differences(case, program)
        if difference:
            wrong[case.name] = difference
        else:
            right.append(case.name)
    assert wrong == {}
    expected = LIST.read_text().split()
    lost, new = sorted(set(expected) - set(right)), sorted(set(right) - set(expected))
    assert not lost, f"no longer supported: {lost}"
    assert not new, f"newly supported, add to {LIST.name}: {new}"
    assert len(expected) == len(set(expected)) == len(right)


def test_supported_cases_with_dynamic_extents_are_right_or_refused(cases: list[Any]) -> None:
    listed = set(LIST.read_text().split())
    right, wrong = 0, {}
    for case in cases:
        if case.name not in listed or "_expanded" in case.name:
            continue
        try:
            program = import_onnx(with_dynamic_extents(case))
        except UnsupportedError:
            continue
        if not any(free_symbols(*container.type.shape) for container in program.containers):
            continue
        difference = differences(case, program)
        if difference:
            wrong[case.name] = difference
        right += not difference
    assert wrong == {}
    assert right == DYNAMIC


def with_dynamic_extents(case: Any) -> onnx.ModelProto:
    """The case's model, a symbol of its own for each extent above 1 of each input."""
    model = with_fixed_inputs(case.model, feeds(case.model, case.data_sets[0][0]))
    fixed = {tensor.name for tensor in model.graph.initializer}
    for info in model.graph.input:
        if info.name in fixed:
            continue
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.dim_value > 1:
                dim.dim_param = f"{info.name}_{axis}"
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


def imported(case: Any) -> Program:
    """The case's model; where shapes are inputs, they are fixed to the case's values."""
    try:
        return import_onnx(case.model)
    except UnsupportedError:
        return import_onnx(with_fixed_inputs(case.model, feeds(case.model, case.data_sets[0][0])))


def with_fixed_inputs(model: onnx.ModelProto, values: Feeds) -> onnx.ModelProto:
    """The model with small integer inputs and all single numbers as initializers."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for name, value in values.items():
        if value.size == 1 or (value.dtype.kind in "iub" and value.size <= 64):
            fixed.graph.initializer.append(numpy_helper.from_array(value, name))
    return fixed


def differences(case: Any, program: Program) -> str:
    """What differs from the shipped outputs at the shipped tolerance; empty if nothing does."""
    wanted = {container.name for container in program.inputs}
    for inputs, outputs in case.data_sets:
        given = {n: a for n, a in feeds(case.model, inputs).items() if n in wanted}
        found = interpret(program, given)
        for info, expected in zip(case.model.graph.output, outputs, strict=True):
            result, reference = found[info.name], as_array(expected)
            if (result.dtype, result.shape) != (reference.dtype, reference.shape):
                return f"{result.dtype}{result.shape}, not {reference.dtype}{reference.shape}"
            if result.dtype.name == "bfloat16":
                result, reference = result.astype(np.float32), reference.astype(np.float32)
            try:
                np.testing.assert_allclose(result, reference, rtol=case.rtol, atol=case.atol)
            except AssertionError as error:
                return str(error)
    return ""


def feeds(model: onnx.ModelProto, values: Any) -> Feeds:
    """The case's inputs by name; sequences and optional values are left out."""
    pairs = zip(model.graph.input, values, strict=False)
    kinds = (TensorProto, np.ndarray, np.generic)
    return {info.name: as_array(value) for info, value in pairs if isinstance(value, kinds)}


def as_array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
