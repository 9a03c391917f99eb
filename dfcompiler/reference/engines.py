"""Engines that are timed against each other, each with the settings that make it fastest here.

Batch and sequence are known when an engine loads, so that it may prepare for exactly them, which a
compiled artifact with free sizes does not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dfcompiler.errors import DfcError, ModelError, ToolchainError, UsageError

Arrays: TypeAlias = Mapping[str, np.ndarray]

_EXTRA = "pip install 'dfcompiler[bench]'"
_PRECISIONS = {"f32": ("onnxruntime", "openvino", "torch", "inductor"), "bf16": ("openvino",)}


@dataclass(frozen=True)
class Entry:
    """One engine, and what it is to run.

    Attributes:
        engine: ``dfcompiler`` or one of `PEERS`.
        model: an artifact, an ONNX or ``.pt2`` file, or ``package.module:function``, which builds
            a torch module.
        threads: how many threads it uses.
        shapes: the shape of every input.
        sizes: the value of every size that is free in the model.
        precision: ``f32`` or ``bf16``.
    """

    engine: str
    model: str
    threads: int
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    precision: str = "f32"


@dataclass(frozen=True)
class Engine:
    """A model loaded by an engine.

    Attributes:
        bind: a call without arguments, with everything done before that can be.
        read: the outputs by name, from what such a call returned.
        before: what must be done before each call and is not part of it.
    """

    bind: Callable[[Arrays], Callable[[], Any]]
    read: Callable[[Any], dict[str, np.ndarray]]
    before: Callable[[], None] = lambda: None


def load_engine(entry: Entry) -> Engine:
    """The engine of an entry with its model, ready to run.

    Raises:
        ToolchainError: if it is not installed.
        UsageError: if it cannot take this kind of model or this precision.
        ModelError: if it refuses the model.
    """
    try:
        return _LOADERS[entry.engine](entry)
    except (DfcError, KeyboardInterrupt):
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{entry.engine} refuses {entry.model}: {first}") from error


def check_peers(names: list[str], precision: str = "f32") -> None:
    """Whether there are peers of these names that compute in this precision.

    Raises:
        UsageError: if there is one that is not known or computes otherwise.
    """
    for name in names:
        if name not in PEERS:
            raise UsageError(f"there is no peer {name}", hint=f"peers are: {', '.join(PEERS)}")
        if name not in _PRECISIONS.get(precision, ()):
            listed = ", ".join(_PRECISIONS.get(precision, ())) or "none"
            raise UsageError(f"{name} is not run in {precision}; peers that are: {listed}")


def _artifact(entry: Entry) -> Engine:
    from dfcompiler.runtime import load

    model = load(entry.model, threads=entry.threads)
    free = {symbol.name for symbol in model.signature.symbols if symbol.fixed_by is None}
    extra = {name: size for name, size in entry.sizes.items() if name in free}
    return Engine(
        lambda inputs: lambda: model.run(inputs, **extra),
        dict,
        model.reset if model.signature.persistent else lambda: None,
    )


def _onnxruntime(entry: Entry) -> Engine:
    """All graph optimizations, spinning threads, sizes fixed before the graph is optimized."""
    ort = _module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = entry.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.log_severity_level = 3
    for name, size in entry.sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    model = str(_file(entry, ".onnx"))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    wanted = [value.name for value in session.get_inputs()]

    def bind(inputs: Arrays) -> Callable[[], Any]:
        feeds = {name: inputs[name] for name in wanted}
        return lambda: session.run(names, feeds)

    return Engine(bind, lambda found: dict(zip(names, found, strict=True)))


def _openvino(entry: Entry) -> Engine:
    """One stream, latency hint, fixed shapes, inputs and outputs shared instead of copied."""
    ov = _module("openvino")
    core = ov.Core()
    model = core.read_model(str(_file(entry, ".onnx")))
    wanted = [port.any_name for port in model.inputs]
    model.reshape({name: list(entry.shapes[name]) for name in wanted})
    settings = {
        "INFERENCE_NUM_THREADS": entry.threads,
        "INFERENCE_PRECISION_HINT": entry.precision,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def bind(inputs: Arrays) -> Callable[[], Any]:
        feeds = {name: inputs[name] for name in wanted}
        return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)

    return Engine(bind, lambda found: {str(i): np.array(x) for i, x in enumerate(found.to_tuple())})


def _torch(entry: Entry) -> Engine:
    _module("torch").set_num_threads(entry.threads)
    return _torch_engine(_torch_module(entry))


def _inductor(entry: Entry) -> Engine:
    """``torch.compile`` for exactly these shapes, weights frozen and packed."""
    torch = _module("torch")
    torch.set_num_threads(entry.threads)
    importlib.import_module("torch._inductor.config").freezing = True  # type: ignore[attr-defined]
    return _torch_engine(torch.compile(_torch_module(entry), dynamic=False))


def _torch_engine(module: Any) -> Engine:
    import torch

    from dfcompiler.reference.runners import tensors_of

    def bind(inputs: Arrays) -> Callable[[], Any]:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}

        def call() -> Any:
            with torch.no_grad():
                return module(**tensors)

        return call

    def read(found: Any) -> dict[str, np.ndarray]:
        return {str(i): value.detach().numpy() for i, value in enumerate(tensors_of(found))}

    return Engine(bind, read)


def _torch_module(entry: Entry) -> Any:
    package, colon, function = entry.model.partition(":")
    if colon:
        return getattr(importlib.import_module(package), function)()
    from dfcompiler.importers.torch_export import load_exported

    return load_exported(_file(entry, ".pt2")).module()


def _file(entry: Entry, suffix: str) -> Path:
    path = Path(entry.model)
    if path.suffix != suffix:
        hint = "name what builds its torch module: --module package.module:function"
        raise UsageError(
            f"{entry.engine} cannot run {entry.model}; expected a {suffix} file",
            hint=hint if suffix == ".pt2" else "",
        )
    return path


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        extra = "pip install 'dfcompiler[torch]'" if name == "torch" else _EXTRA
        raise ToolchainError(f"{name} is not installed", hint=f"install it with {extra}") from None


_LOADERS: dict[str, Callable[[Entry], Engine]] = {
    "dfcompiler": _artifact,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
    "inductor": _inductor,
}
PEERS = tuple(name for name in _LOADERS if name != "dfcompiler")
