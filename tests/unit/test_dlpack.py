"""Capsules of tensors: what numpy and torch give and take is the oracle."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch

from dfcompiler.runtime import dlpack

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


class Giver:
    """Memory of the host, given by us."""

    def __init__(self, array: np.ndarray, dtype: str = "f32") -> None:
        self.array, self.dtype = array, dtype

    def __dlpack__(self, **options: Any) -> Any:
        address = self.array.__array_interface__["data"][0]
        return dlpack.give(address, self.array.shape, self.dtype, (dlpack.CPU, 0), self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0


class Asked:
    """A tensor of the host that is asked for a stream, as those of a GPU are."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return self.value.__dlpack__()


@pytest.mark.parametrize("take", [np.from_dlpack, torch.from_dlpack])
def test_others_share_what_we_give(take: Any) -> None:
    array = ARRAY.copy()
    found = take(Giver(array))
    assert tuple(found.shape) == (3, 4)
    array[1, 2] = 77
    assert float(found[1, 2]) == 77
    assert len(dlpack._given) == 1
    del found
    gc.collect()
    assert not dlpack._given


def test_what_nobody_takes_ends_with_the_capsule() -> None:
    capsule = Giver(ARRAY).__dlpack__()
    assert len(dlpack._given) == 1
    del capsule
    gc.collect()
    assert not dlpack._given


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        *((torch.float64, "f64"), (torch.float32, "f32"), (torch.float16, "f16")),
        *((torch.bfloat16, "bf16"), (torch.int64, "i64"), (torch.int32, "i32")),
        *((torch.int16, "i16"), (torch.int8, "i8"), (torch.uint8, "u8"), (torch.bool, "bool")),
        (torch.complex64, ""),
    ],
)
def test_element_types(dtype: torch.dtype, name: str) -> None:
    tensor = torch.ones(5, 3, dtype=dtype)
    found = dlpack.take(Asked(tensor), 1)
    assert (found.dtype, found.shape, found.ndim) == (name, (5, 3), 2)
    assert found.address == tensor.data_ptr()
    assert found.nbytes == tensor.numel() * tensor.element_size()
    if name:
        again = torch.from_dlpack(Giver(np.zeros((2, 2), np.float64), name))
        assert again.dtype == dtype


@pytest.mark.parametrize(
    ("tensor", "contiguous"),
    [
        (torch.ones(3, 4), True),
        (torch.ones(3, 4).t(), False),
        (torch.ones(3, 4)[:, ::2], False),
        (torch.ones(6, 4)[2:], True),
        (torch.ones(3, 1).t(), True),
        (torch.ones(0, 4).t(), True),
        (torch.ones(()), True),
    ],
)
def test_contiguity(tensor: torch.Tensor, contiguous: bool) -> None:
    assert tensor.is_contiguous() == contiguous
    found = dlpack.take(Asked(tensor), 1)
    assert found.contiguous == contiguous
    assert found.address == (tensor.data_ptr() if tensor.numel() else found.address)


def test_where_things_lie() -> None:
    assert dlpack.device_type(ARRAY) == dlpack.CPU
    assert dlpack.device_type(torch.ones(2)) == dlpack.CPU
    assert dlpack.device_type([1, 2]) == dlpack.CPU
