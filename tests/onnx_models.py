"""ONNX models for tests: small graphs in memory, and exports that are made once per machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dfcompiler.importers.onnx import import_onnx
from dfcompiler.ir import Program, interpret
from dfcompiler.ir.dims import show_dim
from models.onnx_export import export_tiny

ROOT = Path(__file__).parent.parent
Dims = Sequence[int | str | None]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Dims]],
    outputs: Sequence[str],
    initializers: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 20,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model whose outputs have no declared shape.

    Args:
        nodes: the nodes of the graph.
        inputs: element type and extents by name; strings are dim_params, None is dynamic.
        outputs: names.
        initializers: values by name.
        opset: version of the standard operator set.
        functions: model-local functions.
        domains: their domains.
    """
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(n, t, dims) for n, (t, dims) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def float_input(*dims: int | str | None) -> tuple[int, Dims]:
    """The declaration of a single-precision input."""
    return TensorProto.FLOAT, dims


def values(*shape: int) -> np.ndarray:
    """Seeded normally distributed numbers."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def integers(*numbers: int) -> np.ndarray:
    """A vector of int64."""
    return np.array(numbers, np.int64)


def shapes(program: Program) -> dict[str, str]:
    """The shape of every container as text."""
    return {c.name: ", ".join(map(show_dim, c.type.shape)) for c in program.containers}


def kinds(program: Program) -> list[str]:
    """The operators of a program in order."""
    return [op.kind for op in program.ops()]


def require_as_runtime(model: onnx.ModelProto, *feeds: dict[str, np.ndarray]) -> Program:
    """The program, after it gave what ONNX Runtime gives for every feed."""
    program = import_onnx(model)
    options = onnxruntime.SessionOptions()
    # It would round activations of quantized products to 8 bits.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    for feed in feeds:
        found = interpret(program, feed)
        for name, expected in zip(found, session.run(None, feed), strict=True):
            assert found[name].dtype == expected.dtype
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    return program


def tiny_onnx(name: str, opset: int = 20) -> Path:
    """The export of a builder in ``models/``, kept between runs while it and the tools stay."""
    files = (ROOT / "models" / f"{file}.py" for file in (name, "seeded", "onnx_export"))
    source = b"".join(file.read_bytes() for file in files)
    tools = "".join(version(package) for package in ("torch", "transformers", "onnxscript"))
    key = hashlib.sha256(source + tools.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("DFC_CACHE_DIR", ROOT / "build" / "test-cache")) / "exports"
    path = folder / f"{name}-{opset}-{key}.onnx"
    if not path.exists():
        unfinished = folder / f"{path.stem}-{os.getpid()}.onnx"
        export_tiny(name, unfinished, opset=opset).rename(path)
    return path
