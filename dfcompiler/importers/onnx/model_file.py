"""Opens a model: a file, mapped into memory, or a message that is in memory already."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from dfcompiler.errors import ModelError, UsageError
from dfcompiler.importers.onnx.wire import WireError, cut_weights


@dataclass
class ModelFile:
    """A parsed model and where the data of its initializers lies.

    Attributes:
        proto: the model; initializers listed in `weights` have no data in it.
        name: what the program is called.
        weights: bytes of large initializers inside the mapped file, by index of the initializer.
        folder: where external data may lie; None for a model that did not come from a file.
    """

    proto: onnx.ModelProto
    name: str
    weights: dict[int, memoryview] = field(default_factory=dict)
    folder: Path | None = None


def open_model(model: str | Path | onnx.ModelProto) -> ModelFile:
    """The model, parsed; weights stay in the mapped file.

    Raises:
        UsageError: if there is no such file.
        ModelError: if it is no ONNX model.
    """
    if isinstance(model, onnx.ModelProto):
        file = ModelFile(model, model.graph.name or "model")
    else:
        file = _read(Path(model))
    _require_model(file)
    return file


def external_files(path: Path) -> tuple[str, ...]:
    """The files beside a model that hold its external data, as the model names them.

    Raises:
        ModelError: if it is no ONNX model.
    """
    return tuple(
        sorted(
            {
                entry.value
                for tensor in open_model(path).proto.graph.initializer
                for entry in tensor.external_data
                if entry.key == "location"
            }
        )
    )


def _read(path: Path) -> ModelFile:
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    if not path.is_file():
        raise ModelError(f"{path} is a directory; expected an ONNX file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty; expected an ONNX model")
    try:
        with path.open("rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        skeleton = cut_weights(data)
        proto = onnx.ModelProto.FromString(skeleton.message)
    except (WireError, DecodeError) as error:
        reason = str(error) if isinstance(error, WireError) else "its fields do not parse"
        raise ModelError(
            f"{path} is no ONNX model, or only a part of one: {reason}",
            hint="export or download it again, and compare its size",
        ) from error
    weights = {index: data[at : at + size] for index, (at, size) in skeleton.spans.items()}
    return ModelFile(proto, path.stem, weights, path.parent.resolve())


def _require_model(file: ModelFile) -> None:
    proto = file.proto
    if not proto.HasField("graph") or not proto.ir_version or not proto.opset_import:
        lacks = [
            name
            for name, present in (
                ("a graph", proto.HasField("graph")),
                ("an IR version", proto.ir_version),
                ("an operator set", proto.opset_import),
            )
            if not present
        ]
        raise ModelError(f"{file.name} is no ONNX model: it lacks {' and '.join(lacks)}")
    if not proto.graph.output:
        raise ModelError(f"{file.name} has no output")
    broken = next((text for text in _texts(proto) if not isinstance(text, str)), None)
    if broken is not None:
        raise ModelError(f"{file.name} is damaged: the name {broken!r} is no text")


def _texts(proto: onnx.ModelProto) -> Iterator[object]:
    """The names of a model; protobuf gives bytes where they are no UTF-8."""
    yield proto.graph.name
    for info in (*proto.graph.input, *proto.graph.output):
        yield info.name
        yield from (dim.dim_param for dim in info.type.tensor_type.shape.dim)
    for tensor in proto.graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    yield from (entry.domain for entry in proto.opset_import)
    yield from _node_texts(proto.graph.node)
    for function in proto.functions:
        yield from (function.name, function.domain, function.overload)
        yield from (*function.input, *function.output, *function.attribute)
        yield from (attribute.name for attribute in function.attribute_proto)
        yield from (entry.domain for entry in function.opset_import)
        yield from _node_texts(function.node)


def _node_texts(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
