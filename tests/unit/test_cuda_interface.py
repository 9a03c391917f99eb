"""The C interface and the Python runtime of a model on a GPU, which here is an emulated one."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfcompiler.errors import DeviceError, InputError, UsageError
from dfcompiler.runtime import DeviceArray, DeviceModel, dlpack, load, loading
from tests.cuda_artifacts import LIMIT, build_squares, expected_squares
from tests.cuda_emulation.artifact import emulate_artifact
from tests.unit.test_cuda_artifact import has_nvcc

pytestmark = pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_squares(tmp_path_factory.mktemp("artifact") / "squares.dfc")


@pytest.fixture(scope="module")
def emulated(artifact: Path) -> Path:
    return emulate_artifact(artifact, artifact.parent / "emulated.dfc")


@pytest.fixture
def model(emulated: Path) -> DeviceModel:
    return opened(emulated)


def opened(path: Path, **options: bool) -> DeviceModel:
    model = load(path, **options)
    assert isinstance(model, DeviceModel)
    return model


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def on_gpu(model: DeviceModel, array: np.ndarray, dtype: str = "f32") -> DeviceArray:
    """A copy of `array` in the memory of the emulated GPU."""
    library = model._library
    there = DeviceArray(library, array.shape, dtype, array.dtype, lambda stream: None)
    assert not library.device_copy(there.address, array.ctypes.data, array.nbytes)
    return there


def close_to(found: Any, x: np.ndarray, call: int) -> None:
    np.testing.assert_allclose(np.asarray(found), expected_squares(x, call), rtol=1e-6, atol=1e-6)


def test_arrays_of_the_host(model: DeviceModel) -> None:
    for call, count in enumerate((1, 7, 341, 7)):
        x = rows(count, call)
        close_to(model.run({"x": x})["y"], x, call)
    model.reset()
    close_to(model.run({"x": x})["y"], x, 0)


def test_clones_share_weights_and_have_state_of_their_own(model: DeviceModel) -> None:
    x = rows(5)
    model.run({"x": x})
    other = model.clone()
    close_to(other.run({"x": x})["y"], x, 0)
    model.close()
    close_to(other.run({"x": x})["y"], x, 1)
    with pytest.raises(UsageError, match="closed"):
        model.run({"x": x})


def test_tensors_of_the_gpu_stay_there(model: DeviceModel) -> None:
    x = rows(31)
    found = model.run({"x": on_gpu(model, x)})["y"]
    assert isinstance(found, DeviceArray)
    assert found.__dlpack_device__() == (dlpack.CUDA, 0)
    close_to(found, x, 0)
    again = model.run({"x": found})["y"]  # an output is an input as it is
    close_to(again, np.asarray(found), 1)


def test_outputs_into_given_memory(model: DeviceModel) -> None:
    x = rows(3)
    y = on_gpu(model, np.zeros_like(x))
    found = model.run({"x": on_gpu(model, x)}, {"y": y})
    assert found["y"] is y
    close_to(y, x, 0)
    from_host = model.run({"x": x}, {"y": y})
    assert from_host["y"] is y
    close_to(y, x, 1)


class Strided:
    """A producer whose rows have a gap behind them."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        capsule = self.array.__dlpack__(stream=stream)
        self.strides = (ctypes.c_int64 * 2)(8, 1)
        place = dlpack._pointer_of(capsule, dlpack._NAME)
        dlpack._Managed.from_address(place).tensor.strides = self.strides
        return capsule


def test_tensors_that_do_not_fit(model: DeviceModel) -> None:
    x = on_gpu(model, rows(4))
    whole = on_gpu(model, np.zeros((4, 4), np.int32), "i32")
    flat = on_gpu(model, np.zeros(4, np.float32))
    short = on_gpu(model, rows(2))
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"x": whole}, {}, r"x is i32; expected x: f32\[N, 4\]"),
        ({"x": flat}, {}, r"x has rank 1, shape \[4\]; expected x"),
        ({"x": Strided(x)}, {}, "x is not contiguous"),
        ({"x": x}, {"y": x}, "the memory of y and x overlaps"),
        ({"x": x}, {"y": short}, r"the memory for y has shape \[2, 4\]; expected \[4, 4\]"),
        ({"x": x}, {"y": rows(4)}, "the memory for y does not lie on the GPU"),
        ({"x": x}, {"z": x}, "there is no output z; this model's outputs are: y"),
    ]
    for inputs, outputs, message in cases:
        with pytest.raises(InputError, match=message):
            model.run(inputs, outputs)
    close_to(model.run({"x": x})["y"], np.asarray(x), 0)


def test_an_index_out_of_range_is_a_sentence_once(model: DeviceModel) -> None:
    x = rows(2)
    x[1, 2] = 2 * LIMIT
    with pytest.raises(InputError, match=r"\(embedding\): index 2000000 is out of range"):
        model.run({"x": x})
    model.run({"x": rows(2)})


def test_calls_on_a_stream_of_the_caller(model: DeviceModel) -> None:
    x = rows(2)
    x[0, 0] = 2 * LIMIT
    own = model.stream
    model.use_stream(0)
    assert model.stream == 1
    model.run({"x": on_gpu(model, x)})  # not waited for, so nothing is known yet
    with pytest.raises(InputError, match="index 2000000 is out of range"):
        model.synchronize()
    found = model.run({"x": on_gpu(model, rows(2))})["y"]
    close_to(found, rows(2), 1)
    model.use_stream(None)
    assert model.stream == own


def test_a_stream_that_every_thread_has_of_its_own_is_refused(model: DeviceModel) -> None:
    with pytest.raises(UsageError, match="cudaStreamPerThread is another stream in each thread"):
        model.use_stream(2)
    model.run({"x": rows(2)})


def test_equal_calls_are_replayed(emulated: Path) -> None:
    model = opened(emulated, graphs=True)
    launches = ctypes.CDLL(str(emulated / "model.so"), mode=ctypes.RTLD_LOCAL)
    count = launches.emulation_graph_launches
    before, x = count(), rows(9)
    for call, expected in enumerate((0, 1, 2)):
        found = model.run({"x": x})["y"]
        assert count() - before == expected
        close_to(found, x, call)
    model.run({"x": rows(8)})
    assert count() - before == 2
    model.run({"x": x})
    assert count() - before == 3
    model.keep_graphs(False)
    model.run({"x": x})
    assert count() - before == 3


def test_many_sizes_go_round(emulated: Path) -> None:
    model = opened(emulated, graphs=True)
    for call in range(12):
        x = rows(call + 1)
        close_to(model.run({"x": x})["y"], x, call)


def test_no_memory_is_a_sentence_with_sizes(model: DeviceModel) -> None:
    with pytest.raises(InputError) as caught:
        DeviceArray(model._library, (1 << 50,), "f32", np.dtype(np.float32), lambda stream: None)
    assert caught.value.message == (
        "out of device memory: a tensor needs 4503599627370496 bytes; "
        "1073741824 of 2147483648 are free"
    )
    close_to(model.run({"x": rows(2)})["y"], rows(2), 0)


def test_another_gpu_is_a_sentence(artifact: Path, tmp_path: Path) -> None:
    def older(name: str, text: str) -> str:
        return text.replace("kMajor = 9, kMinor = 0", "kMajor = 8, kMinor = 0").replace(
            "cuda:sm_90", "cuda:sm_80"
        )

    path = emulate_artifact(artifact, tmp_path / "older.dfc", older)
    with pytest.raises(DeviceError) as caught:
        load(path)
    assert caught.value.message == (
        "the artifact is for cuda:sm_80, the GPU is sm_90; compile the model with "
        "--target cuda:sm_90"
    )


def test_a_failed_launch_names_its_kernel(artifact: Path, tmp_path: Path) -> None:
    def too_wide(name: str, text: str) -> str:
        return text.replace("dim3(64, 1, 1)", "dim3(2048, 1, 1)") if name == "maps.cu" else text

    model = load(emulate_artifact(artifact, tmp_path / "wide.dfc", too_wide))
    for _ in range(2):
        with pytest.raises(DeviceError, match=r"the launch of compute_map_\w+ failed: invalid"):
            model.run({"x": rows(2)})


def test_graphs_and_threads_are_of_one_kind_each(model: DeviceModel) -> None:
    with pytest.raises(InputError, match="there are no threads to set"):
        model.set_threads(2)


def test_cublaslt_of_a_python_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader finds an open library by its name, wherever it was opened from."""
    name = "libcublasLt.so.99"
    folder = tmp_path / "site-packages" / "nvidia" / "cu99" / "lib"
    folder.mkdir(parents=True)
    command = ["gcc", "-shared", f"-Wl,-soname,{name}", "-xc", "/dev/null", "-o", folder / name]
    subprocess.run(command, check=True)
    with pytest.raises(OSError, match="cannot open"):
        ctypes.CDLL(name)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "site-packages")])
    loading._offer_cublaslt()
    ctypes.CDLL(name)
