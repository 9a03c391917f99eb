"""Instructions of sm_90a in emulation: copies by TMA, barriers, products; mistakes with them."""

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
    return build((HERE / "hopper_example.cu").read_text())


def normal(*shape: int, dtype: object = np.float32) -> np.ndarray:
    values = np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)
    return kernels().copy(values.astype(dtype))


def copy_box(
    x: np.ndarray,
    box: list[int],
    at: list[int],
    *,
    strides: list[int] | None = None,
    extents: list[int] | None = None,
    mistake: int = 0,
) -> np.ndarray:
    """A box of `x` copied by TMA; coordinates begin with the contiguous axis."""
    y = kernels().array((*box[:0:-1], 64), np.float16)
    own = [x.strides[i] for i in range(x.ndim - 2, -1, -1)]
    numbers = (extents or list(x.shape[::-1]), strides or own, box, at)
    passed = [kernels().copy(np.array(values, np.int64)) for values in numbers]
    kernels().call("copied", y, x, *passed, x.ndim, mistake)
    return y


@pytest.mark.parametrize(
    ("box", "at"),
    [
        ([64, 8, 1], [0, 0, 0]),
        ([64, 4, 3], [32, 5, 1]),  # past the end of every axis
        ([64, 16, 1], [-5, -3, 1]),  # before the start
        ([64, 8, 1], [64, 0, 0]),  # nothing but the outside
    ],
)
def test_a_box_of_three_axes(box: list[int], at: list[int]) -> None:
    x = normal(3, 13, 56, dtype=np.float16)
    padded = np.pad(x.astype(np.float64), [(8, 8), (32, 32), (256, 256)])
    ends = [at[2] + 8, at[1] + 32, at[0] + 256]
    window = tuple(slice(e, e + b) for e, b in zip(ends, box[::-1], strict=True))
    np.testing.assert_array_equal(copy_box(x, box, at), padded[window])


def test_a_box_of_four_axes() -> None:
    x = normal(2, 3, 5, 64, dtype=np.float16)
    np.testing.assert_array_equal(copy_box(x, [64, 4, 1, 1], [0, 1, 2, 1])[0, 0], x[1, 2, 1:5])


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        (1, "a copy of bytes that its barrier does not expect"),
        (2, "ends with copies into its shared memory that nothing waits for"),
        (3, "a barrier that is not initialized"),
        (4, "stands still: .* for the end of phase 0, where 1 of 2 arrivals and 0 bytes are"),
    ],
)
def test_a_copy_that_is_wrong(mistake: int, found: str) -> None:
    with pytest.raises(EmulationError, match=found):
        copy_box(normal(1, 8, 64, dtype=np.float16), [64, 8, 1], [0, 0, 0], mistake=mistake)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"box": [32, 8, 1]}, "a row of a box is not 128 bytes"),
        ({"box": [64, 257, 1]}, "a side of a box is not between 1 and 256"),
        ({"strides": [136, 1024]}, "a stride is no multiple of 16 bytes"),
        ({"strides": [0, 1024]}, r"a stride is not between 16 and 2\^40 - 1 bytes"),
        ({"strides": [128, 1 << 40]}, r"a stride is not between 16 and 2\^40 - 1 bytes"),
        ({"extents": [64, 0, 1]}, r"an extent is not between 1 and 2\^31 - 256"),
        ({"extents": [64, (1 << 31) - 255, 1]}, r"an extent is not between 1 and 2\^31 - 256"),
    ],
)
def test_what_tma_cannot_copy(changed: dict[str, list[int]], found: str) -> None:
    options: dict[str, list[int]] = {"box": [64, 8, 1], **changed}
    with pytest.raises(EmulationError, match=f"a tensor cannot be copied by TMA: {found}"):
        copy_box(normal(1, 8, 64, dtype=np.float16), at=[0, 0, 0], **options)


def test_a_tensor_that_is_not_aligned() -> None:
    x = normal(2, 8, 64, dtype=np.float16).reshape(-1)[1 : 1 + 512].reshape(1, 8, 64)
    with pytest.raises(EmulationError, match="its address is no multiple of 16"):
        copy_box(x, [64, 8, 1], [0, 0, 0])


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_ring_of_two_stages(steps: int) -> None:
    x, y = normal(steps, 32), kernels().array((steps, 32), np.float32)
    kernels().call("handed_over", y, x, steps, 0)
    np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        (1, "waits twice for the same phase of a barrier"),
        (2, "stands still: .* for the end of phase 4, where 32 of 32 arrivals and 0 bytes are"),
    ],
)
def test_a_ring_that_is_wrong(mistake: int, found: str) -> None:
    x, y = normal(7, 32), kernels().array((7, 32), np.float32)
    with pytest.raises(EmulationError, match=found):
        kernels().call("handed_over", y, x, 7, mistake)


def test_barriers_of_some_warps() -> None:
    x, y = normal(64), kernels().array((64,), np.float32)
    kernels().call("turned", y, x, 64)
    np.testing.assert_array_equal(y, x[::-1])
    with pytest.raises(EmulationError, match="at one barrier with different counts"):
        kernels().call("turned", y, x, 96)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(
    ("name", "columns", "dtype"),
    [
        *(("__nv_bfloat16", n, ml_dtypes.bfloat16) for n in (64, 128, 256)),
        *(("__half", n, np.float16) for n in (64, 256)),
    ],
)
def test_products_of_a_warp_group(name: str, columns: int, dtype: object, transposed: int) -> None:
    a, b = normal(64, 16, dtype=dtype), normal(16, columns, dtype=dtype)
    c = kernels().array((64, columns), np.float32)
    kernels().call(f"product_{name}_{columns}", c, a, b, transposed, 0)
    assert_close(c, (2 * (a.astype(np.float64) @ b.astype(np.float64))).astype(np.float32))


def test_a_product_that_is_wrong() -> None:
    a, b = normal(64, 16, dtype=np.float16), normal(16, 64, dtype=np.float16)
    c = kernels().array((64, 64), np.float32)
    kernels().call("product___half_64", c, a, b, 0, 1)
    assert np.isnan(c).all(), "what is not fenced is not seen"
    with pytest.raises(EmulationError, match="a product whose registers were not fenced"):
        kernels().call("product___half_64", c, a, b, 0, 2)
