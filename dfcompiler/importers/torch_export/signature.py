"""What an exported program says about its inputs, parameters, buffers and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch.utils import _pytree as pytree

from dfcompiler.errors import UnsupportedError


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values as an array over the same memory."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def storage_key(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same memory seen in the same way, as tied parameters are."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def stored_tensor(exported: Any, target: str) -> torch.Tensor:
    """The parameter, buffer or constant called `target`."""
    if target in exported.state_dict:
        return exported.state_dict[target]
    return exported.constants[target]


def output_names(exported: Any) -> list[str]:
    """A name for each leaf of the module's result.

    Fields and keys give their names; the elements of a plain tuple are ``output``, ``output_1``, …
    """
    spec = exported.call_spec.out_spec
    leaves = [object() for _ in range(spec.num_leaves)]
    paths = [
        path for path, _ in pytree.tree_flatten_with_path(pytree.tree_unflatten(leaves, spec))[0]
    ]
    return [_path_name(path) for path in paths]


def _path_name(path: Iterable[Any]) -> str:
    parts = [_key_name(key) for key in path]
    if not parts or parts[0].isdigit():
        number = parts[0] if parts else "0"
        parts = ["output", *([number] if number != "0" else []), *parts[1:]]
    return re.sub(r"\W", "_", "_".join(parts))


def _key_name(key: Any) -> str:
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    raise UnsupportedError(f"the module's result has a part without a name: {key}")


def unique(names: Iterable[str], taken: set[str]) -> Iterator[str]:
    """The names, those that are taken with a number behind; `taken` grows."""
    for name in names:
        candidate, number = name, 0
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.add(candidate)
        yield candidate
