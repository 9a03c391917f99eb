"""Packing, and the weights file."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from dfcompiler.codegen import weights
from dfcompiler.codegen.process import Backgrounds, Stopped
from dfcompiler.codegen.weights import (
    HEADER_BYTES,
    MAGIC,
    WeightsTable,
    pack,
    weights_table,
    write_weights,
)
from dfcompiler.errors import InternalError
from dfcompiler.ir import Container, DType, Layout, PhysicalAxis, Program, Role, TensorType
from dfcompiler.ir.stacked import side_by_side, stack

PERMUTED = Layout.permuted(1, 0, 2)
PANELS = Layout((PhysicalAxis(1, 4), PhysicalAxis(0), PhysicalAxis(1, 4, True)))


def reference(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Packing element by element."""
    shape = layout.physical_shape(array.shape)
    result = np.zeros(shape, array.dtype)
    for place in np.ndindex(*shape):
        index = [0] * array.ndim
        for axis, position in zip(layout.order, place, strict=True):
            scale = axis.tile if axis.tile and not axis.inner else 1
            index[axis.axis] += position * scale
        if all(i < n for i, n in zip(index, array.shape, strict=True)):
            result[place] = array[tuple(index)]
    return result


@pytest.mark.parametrize("columns", [1, 4, 7, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16])
def test_panels(columns: int, dtype: type) -> None:
    array = np.arange(3 * columns).reshape(3, columns).astype(dtype)
    packed = pack(array, PANELS)
    np.testing.assert_array_equal(packed.reshape(-1), reference(array, PANELS).reshape(-1))


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout.permuted(2, 0, 1),
        Layout((PhysicalAxis(0), PhysicalAxis(2, 2), PhysicalAxis(1), PhysicalAxis(2, 2, True))),
        Layout(
            (
                *(PhysicalAxis(0, 4), PhysicalAxis(1, 2), PhysicalAxis(2)),
                *(PhysicalAxis(0, 4, True), PhysicalAxis(1, 2, True)),
            )
        ),
        Layout((PhysicalAxis(1, 2, True), PhysicalAxis(0), PhysicalAxis(2), PhysicalAxis(1, 2))),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunk", [4, 40, 1 << 20])
def test_layouts_in_pieces(layout: Layout, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(6 * 5 * 3, dtype=np.float32).reshape(6, 5, 3)
    expected = reference(array, layout) if layout.order else array
    np.testing.assert_array_equal(pack(array, layout).reshape(-1), expected.reshape(-1))
    monkeypatch.setattr(weights, "_CHUNK_BYTES", chunk)
    pieces = [p.reshape(-1) for p in weights._chunks(array, layout)]
    np.testing.assert_array_equal(np.concatenate(pieces), expected.reshape(-1))


def test_a_layout_that_skips_an_axis_is_refused() -> None:
    with pytest.raises(InternalError, match="walk every axis"):
        pack(np.zeros((2, 3), np.float32), Layout((PhysicalAxis(1),)))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 7, np.int64)
    assert pack(array, Layout()).tobytes() == array.tobytes()


def program_of(**data: np.ndarray) -> Program:
    containers = tuple(
        Container(Role.WEIGHT, name, TensorType(DType.of(array.dtype), array.shape))
        for name, array in data.items()
    )
    return Program("p", (), containers, (), data)


def test_file(tmp_path: Path) -> None:
    big = np.arange(300_000, dtype=np.float32)
    program = program_of(a=np.ones(3, np.int8), big=big, same=big.copy(), b=np.ones(2, np.float64))
    path = tmp_path / "weights.bin"
    file = write_weights(path, program)
    stored = {tensor.name: tensor for tensor in file.tensors}
    content = path.read_bytes()
    assert weights_table(program) == WeightsTable(file.tensors, file.bytes)
    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert content.startswith(MAGIC)
    assert len(content) % 64 == 0
    for name, array in program.data.items():
        tensor = stored[name]
        found = content[tensor.offset : tensor.offset + tensor.bytes]
        assert found == array.tobytes()
        assert tensor.offset >= HEADER_BYTES
        assert tensor.offset % 64 == 0
    assert stored["same"].offset == stored["big"].offset
    assert stored["big"].offset % 4096 == 0
    assert len(content) < 2 * big.nbytes


def test_layers_are_put_together_while_they_are_written(tmp_path: Path) -> None:
    layers = [np.arange(15, dtype=np.float32).reshape(3, 5) + 100 * i for i in range(4)]
    order = (PhysicalAxis(0), PhysicalAxis(2, 4), PhysicalAxis(1), PhysicalAxis(2, 4, True))
    types = [
        TensorType(DType.F32, (4, 3, 5), layout) for layout in (Layout(order), Layout(), PERMUTED)
    ]
    containers = tuple(Container(Role.WEIGHT, f"w{i}", t) for i, t in enumerate(types))
    data = {container.name: stack(layers) for container in containers}
    path = tmp_path / "weights.bin"
    for tensor in write_weights(path, Program("p", (), containers, (), data)).tensors:
        expected = pack(np.stack(layers), tensor.type.layout)
        found = path.read_bytes()[tensor.offset : tensor.offset + tensor.bytes]
        assert found == expected.tobytes()


def test_header_tells_models_apart(tmp_path: Path) -> None:
    write_weights(tmp_path / "a", program_of(a=np.zeros(4, np.float32)))
    write_weights(tmp_path / "b", program_of(b=np.zeros(4, np.float32)))
    heads = [(tmp_path / name).read_bytes()[:HEADER_BYTES] for name in "ab"]
    assert heads[0] != heads[1]


def test_non_contiguous_views_are_written_as_they_read(tmp_path: Path) -> None:
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    program = program_of(t=base.T, s=base[:, ::2])
    path = tmp_path / "weights.bin"
    for tensor in write_weights(path, program).tensors:
        raw = path.read_bytes()[tensor.offset : tensor.offset + tensor.bytes]
        expected = np.ascontiguousarray(program.data[tensor.name])
        assert raw == expected.tobytes()


def test_memory_stays_small(tmp_path: Path) -> None:
    array = np.ones((8192, 1024), np.float32)
    program = program_of(w=array)
    tiled = replace(program.containers[0], type=TensorType(DType.F32, array.shape, PANELS))
    tracemalloc.start()
    write_weights(tmp_path / "weights.bin", replace(program, containers=(tiled,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 2


def test_writing_that_is_not_wanted_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopping = threading.Event(), threading.Event()
    pieces = weights._chunks

    def slow(array: np.ndarray, layout: Layout) -> Iterator[np.ndarray]:
        for piece in pieces(array, layout):
            begun.set()
            stopping.wait(60)
            yield piece

    monkeypatch.setattr(weights, "_chunks", slow)
    program = program_of(w=np.zeros(64, np.float32))
    with Backgrounds() as aside:
        writing = aside.start(lambda: write_weights(tmp_path / "weights.bin", program))
        begun.wait(60)
        threading.Timer(0.1, stopping.set).start()
    with pytest.raises(Stopped):
        writing.result()


def test_missing_data_is_an_error(tmp_path: Path) -> None:
    program = replace(program_of(w=np.zeros(2, np.float32)), data={})
    with pytest.raises(InternalError, match="@w has no data"):
        write_weights(tmp_path / "weights.bin", program)


def test_data_of_another_type_is_an_error(tmp_path: Path) -> None:
    program = replace(program_of(w=np.zeros(2, np.float32)), data={"w": np.zeros(3, np.float32)})
    with pytest.raises(InternalError, match="expected"):
        write_weights(tmp_path / "weights.bin", program)


@pytest.mark.parametrize("layout", [Layout(), PANELS, Layout.permuted(1, 0)], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_weights_side_by_side(
    layout: Layout, transposed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are packed as if they were one, also as layers of a stack and in pieces."""
    monkeypatch.setattr(weights, "_CHUNK_BYTES", 64)
    values = np.random.default_rng(0).standard_normal((2, 5, 18)).astype(np.float32)
    if transposed:
        values = values.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    layers = [side_by_side([v[:, :6], v[:, 6:7], v[:, 7:]]) for v in values]
    order = tuple(replace(axis, axis=axis.axis + 1) for axis in layout.order)
    deep = Layout((PhysicalAxis(0), *order)) if order else layout
    containers = (
        Container(Role.WEIGHT, "one", TensorType(DType.F32, (5, 18), layout)),
        Container(Role.WEIGHT, "all", TensorType(DType.F32, (2, 5, 18), deep)),
    )
    program = Program("p", (), containers, (), data={"one": layers[0], "all": stack(layers)})
    written = write_weights(tmp_path / "w.bin", program)
    content = (tmp_path / "w.bin").read_bytes()
    whole = (values[0], values)
    for tensor, array in zip(written.tensors, whole, strict=True):
        found = content[tensor.offset : tensor.offset + tensor.bytes]
        assert found == pack(array, tensor.type.layout).tobytes()
