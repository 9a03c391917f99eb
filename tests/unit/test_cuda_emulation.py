"""The emulation itself: barriers, warps, tensor cores, and the mistakes that it must find."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.cuda_emulation import EmulationError, Library, build, toolkit
from tests.tolerances import assert_close

HERE = Path(__file__).parents[1] / "cuda_emulation"
pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")


@cache
def kernels() -> Library:
    return build((HERE / "example.cu").read_text())


def normal(*shape: int, dtype: object = np.float32) -> np.ndarray:
    values = np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)
    return kernels().copy(values.astype(dtype))


@pytest.mark.parametrize(("rows", "n"), [(1, 1), (3, 95), (2, 257)])
def test_sums_across_a_block(rows: int, n: int) -> None:
    x, sums = normal(rows, n), kernels().array((rows,), np.float32)
    kernels().call("row_sums", sums, x, rows, n)
    assert_close(sums, x.astype(np.float64).sum(axis=1).astype(np.float32))


@pytest.mark.parametrize("n", [32, 33, 1024])
def test_threads_exchange_through_dynamic_shared_memory(n: int) -> None:
    x, y = normal(n), kernels().array((n,), np.float32)
    kernels().call("reversed", y, x, n, -1, 0)
    np.testing.assert_array_equal(y, x[::-1])


def test_a_barrier_that_one_thread_skips() -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    found = r"kernel reverse: block \(0, 0, 0\): .*waits at __syncthreads, unit0.cu:\d+, which not"
    with pytest.raises(EmulationError, match=found):
        kernels().call("reversed", y, x, 64, 40, 0)


def test_a_warp_operation_that_one_lane_skips() -> None:
    o = kernels().array((32,), np.int32)
    with pytest.raises(EmulationError, match=r"__shfl_sync.*\(17, 0, 0\) has ended"):
        kernels().call("some", o, 17)


def test_an_emulation_goes_on_after_an_error() -> None:
    test_a_barrier_that_one_thread_skips()
    test_threads_exchange_through_dynamic_shared_memory(64)


def test_shared_memory_past_the_end() -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    with pytest.raises(EmulationError, match=r"thread \(0, 0, 0\) accesses memory 0 bytes past"):
        kernels().call("reversed", y, x, 64, -1, 64)


def test_global_memory_past_the_end() -> None:
    x, y = normal(100), kernels().array((100,), np.float32)
    kernels().call("scaled", y, x, 100, 2)
    np.testing.assert_array_equal(y, 2 * x)
    with pytest.raises(EmulationError, match=r"kernel scale_typed: block .* of 400 bytes"):
        kernels().call("scaled", y, x, 128, 2)


def test_grids_have_limits() -> None:
    x, y = normal(4), kernels().array((4,), np.float32)
    with pytest.raises(EmulationError, match="a grid of 1 x 70000 x 1 blocks"):
        kernels().call("scaled", y, x, 4, 70000)


def test_something_is_written_into_the_last_bytes_before_the_guard() -> None:
    x, y = normal(32), kernels().array((30,), np.float32)
    with pytest.raises(EmulationError, match="written beside a buffer of 120 bytes"):
        kernels().call("reversed", y, x, 32, -1, 0)


def test_shared_memory_that_is_read_before_it_is_there() -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    with pytest.raises(EmulationError, match="threads race: array 0"):
        kernels().call("reversed_unprotected", y, x)


def test_two_threads_write_one_element() -> None:
    with pytest.raises(EmulationError, match="first at element 0"):
        kernels().call("collided", kernels().array((1,), np.float32))


def test_warp_operations() -> None:
    o = kernels().array((10, 32), np.int32)
    kernels().call("warps", o)
    lane = np.arange(32)
    np.testing.assert_array_equal(o[0], np.full(32, 5))
    np.testing.assert_array_equal(o[1], lane // 8 * 8 + 3)
    np.testing.assert_array_equal(o[2], lane ^ 6)
    np.testing.assert_array_equal(o[3], np.where(lane % 16 + 3 < 16, lane + 3, lane))
    np.testing.assert_array_equal(o[4], np.where(lane % 16 >= 3, lane - 3, lane))
    votes = sum(1 << int(i) for i in lane if i % 3 == 0)
    np.testing.assert_array_equal(o[5].view(np.uint32), np.full(32, votes, np.uint32))
    np.testing.assert_array_equal(o[6], np.ones(32))
    np.testing.assert_array_equal(o[7], np.full(32, 31))
    np.testing.assert_array_equal(o[8], np.where(lane < 8, 7, 8))
    np.testing.assert_array_equal(o[9], np.full(32, 8))


@pytest.mark.parametrize(
    ("name", "dtype"), [("product_bf16", ml_dtypes.bfloat16), ("product_f16", np.float16)]
)
def test_tensor_cores(name: str, dtype: object) -> None:
    a, b = normal(16, 16, dtype=dtype), normal(16, 8, dtype=dtype)
    c = kernels().array((16, 8), np.float32)
    kernels().call(name, c, a, b, 1)
    assert_close(c, (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32))


def test_copies_are_not_there_before_they_are_waited_for() -> None:
    a, b = normal(16, 16, dtype=np.float16), normal(16, 8, dtype=np.float16)
    c = kernels().array((16, 8), np.float32)
    kernels().call("product_f16", c, a, b, 0)
    assert np.isnan(c).all()


def test_tensor_cores_of_tf32() -> None:
    a, b = normal(16, 8), normal(8, 8)
    c = kernels().array((16, 8), np.float32)
    kernels().call("products_tf32", c, a, b)
    left, right = (((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32) for x in (a, b))
    assert_close(c, (left.astype(np.float64) @ right.astype(np.float64)).astype(np.float32))


def test_an_address_that_is_not_aligned() -> None:
    x, y = normal(8), kernels().array((8,), np.float32)
    with pytest.raises(EmulationError, match="not aligned"):
        kernels().call("four_at_once", y, x)


def test_a_kernel_that_begins_before_its_predecessor_has_ended() -> None:
    x, w, y = normal(64), normal(64), kernels().array((64,), np.float32)
    weights = kernels().weight(w)
    kernels().call("scaled_none", y, weights, x, 64)
    assert_close(y, (weights.astype(np.float64) * x).astype(np.float32))


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        ("never_waits", r"block \(0, 0, 0\) ends and has not waited for its predecessor"),
        (
            "some_wait",
            r"waits at wait_for_predecessor.* not all reach: thread \(40, 0, 0\) has ended",
        ),
        ("reads_early", "accesses a buffer of 256 bytes before it waits for its predecessor"),
        ("copies_early", "accesses a buffer of 256 bytes before it waits for its predecessor"),
        ("writes_early", "accesses a buffer of 256 bytes before it waits for its predecessor"),
    ],
)
def test_what_a_kernel_must_not_do_before_it_waits(mistake: str, found: str) -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    with pytest.raises(EmulationError, match=found):
        kernels().call(f"scaled_{mistake}", y, kernels().weight(normal(64)), x, 64)


def test_only_weights_are_read_before_a_kernel_waits() -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    with pytest.raises(EmulationError, match="before it waits for its predecessor"):
        kernels().call("scaled_none", y, normal(64), x, 64)
