"""The containers of a program: inputs, outputs, and tensors that come with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

from dfcompiler.importers.torch_export.context import Context, Tensor, Value
from dfcompiler.importers.torch_export.mutation import renumber, write_buffers, write_outputs
from dfcompiler.importers.torch_export.ranges import range_of_data
from dfcompiler.ir.program import Container, Program, Role, State
from dfcompiler.ir.rewrite import drop_unused_weights, live_ops
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.ir.verify import verify

CONSTANT_ELEMENTS = 8
"""Tensors up to this size become `constant` operators, so that passes see their values."""


class Containers:
    """Declares containers, and puts the program together."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._declared: dict[str, Container] = {}
        self._data: dict[str, np.ndarray] = {}
        self._tied: dict[tuple[object, ...], Value] = {}
        self._results: list[tuple[str, str]] = []

    def declare(self, role: Role, name: str, tensor_type: TensorType) -> Tensor:
        """A container; its name gets a number behind it when it is taken."""
        unique, number = name, 0
        while unique in self._declared:
            number += 1
            unique = f"{name}_{number}"
        self._declared[unique] = Container(role, unique, tensor_type)
        return Tensor(f"@{unique}", tensor_type)

    def persistent(self, name: str, tensor: torch.Tensor) -> Tensor:
        """A buffer that the model writes; it starts with its present contents."""
        array = _array(tensor)
        declared = self.declare(Role.PERSIST, name, _type(array))
        if np.any(array):
            self._data[declared.name[1:]] = array
        return declared

    def fixed(self, name: str, tensor: torch.Tensor) -> Tensor:
        """A parameter, buffer or constant that stays as it is; tied ones share a container."""
        key = _storage(tensor)
        if key not in self._tied:
            self._tied[key] = self._weight(name, _array(tensor))
        found: Tensor = self._tied[key]
        return found

    def _weight(self, name: str, array: np.ndarray) -> Tensor:
        if array.size <= CONSTANT_ELEMENTS:
            self.ctx.source = name
            return self.ctx.constant(_nested(array.tolist()), DType.of(array.dtype), array.shape)
        weight = self.declare(Role.WEIGHT, name, _type(array))
        self._data[weight.name[1:]] = array
        return Tensor(weight.name, weight.type, range_of_data(array))

    def output(self, name: str, value: Value) -> str:
        """Declares the output that gets a tensor, a number or a size; returns its name."""
        self.ctx.source = name
        tensor = value
        if not isinstance(value, Tensor):
            tensor = self.ctx.number(value, _number_dtype(value))
        declared = self.declare(Role.OUTPUT, name, tensor.type).name
        self._results.append((declared, tensor.name))
        return declared[1:]

    def program(self, name: str, updates: Mapping[str, str]) -> Program:
        """The verified program.

        Args:
            name: its name.
            updates: the value that each ``@buffer`` has at the end.
        """
        declared = self._declared.values()
        types = self.ctx.builder.types | {f"@{c.name}": c.type for c in declared}
        # Outputs first: one that shows a buffer's old contents is copied before they change.
        ops = write_outputs(self.ctx.builder.ops, self._results, types, updates.values())
        ops = renumber(live_ops(write_buffers(ops, updates, types)))
        order = list(Role)
        containers = sorted(declared, key=lambda container: order.index(container.role))
        symbols = self.ctx.symbols.declared()
        program = Program(name, symbols, tuple(containers), (State("main", ops),), self._data)
        return verify(drop_unused_weights(program))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values as an array over the same memory."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _type(array: np.ndarray) -> TensorType:
    return TensorType(DType.of(array.dtype), array.shape)


def _storage(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same memory seen in the same way, as tied parameters are."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _nested(value: Any) -> Any:
    return tuple(map(_nested, value)) if isinstance(value, Sequence) else value


def _number_dtype(value: object) -> DType:
    match value:
        case bool():
            return DType.BOOL
        case float():
            return DType.F32
    return DType.I64
