"""Emission of operators from ATen nodes: values, constants and type promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch

from dfcompiler.errors import InternalError
from dfcompiler.importers.torch_export.ranges import Range, range_of_op
from dfcompiler.importers.torch_export.symbols import Symbols, dtype_of, torch_dtype
from dfcompiler.ir.dims import Dim, Shape, same_shape
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Attr, Attrs
from dfcompiler.ir.rewrite import Builder
from dfcompiler.ir.types import DType, TensorType


class NotSupported(Exception):  # noqa: N818 - it is collected, and raised as UnsupportedError
    """A node that has a handler, used in a way that the handler cannot express."""


@dataclass(frozen=True)
class Tensor:
    """A value of the program: its name, its type, and the range it holds when that is known."""

    name: str
    type: TensorType
    range: Range | None = None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def axis(self, axis: int) -> int:
        """`axis` counted from the front."""
        return normalize_axis(axis, self.rank) if self.rank else 0


Number: TypeAlias = "int | float | bool | Dim"
Operand: TypeAlias = "Tensor | Number"
Value: TypeAlias = Any


class Context:
    """Appends operators for one node after the other.

    Attributes:
        source: the name under which the current node is kept.
        expected: what torch says the current node gives: a (fake) tensor, or several.
    """

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.builder = Builder()
        self.source = ""
        self.expected: Any = None

    @property
    def result(self) -> TensorType:
        """The type that torch says the current node has."""
        return self.symbols.type(self.expected)

    def emit(
        self,
        kind: str,
        inputs: Sequence[Tensor] = (),
        attrs: Mapping[str, Attr] | None = None,
        *,
        type: TensorType | None = None,  # noqa: A002
    ) -> Tensor:
        """Appends an operator; `type` is needed where its rule cannot infer it."""
        names = [tensor.name for tensor in inputs]
        for tensor in inputs:
            self.builder.types.setdefault(tensor.name, tensor.type)
        name = self.builder.op(kind, names, attrs, type=type, source=self.source)
        found = self.builder.types[name]
        types, ranges = [t.type for t in inputs], [t.range for t in inputs]
        return Tensor(name, found, range_of_op(kind, ranges, types, Attrs(attrs), found))

    def constant(self, value: Attr, dtype: DType, shape: Shape = ()) -> Tensor:
        """A number in every element, or nested lists of numbers."""
        if dtype is DType.F32:
            value = _shortest(value)
        return self.emit("constant", (), {"value": value}, type=TensorType(dtype, shape))

    def number(self, value: Number, dtype: DType) -> Tensor:
        """A number or a dimension as a tensor of rank 0."""
        if isinstance(value, int | float):
            if dtype is DType.BOOL:
                return self.constant(bool(value), dtype)
            return self.constant(float(value) if dtype.is_float else int(value), dtype)
        tensor = self.emit("dim", (), {"value": value}, type=TensorType(DType.I64))
        return self.cast(tensor, dtype)

    def cast(self, x: Tensor, dtype: DType) -> Tensor:
        """`x` with another element type; `x` itself when it has that one."""
        return x if x.dtype is dtype else self.emit("cast", [x], {"to": dtype})

    def as_tensor(self, x: Operand, dtype: DType) -> Tensor:
        """An operand as a tensor of element type `dtype`."""
        return self.cast(x, dtype) if isinstance(x, Tensor) else self.number(x, dtype)

    def elementwise(self, kind: str, *operands: Operand) -> Tensor:
        """An element-wise operator over operands of one element type, after promotion."""
        dtype = promoted(operands)
        return self.emit(kind, [self.as_tensor(x, dtype) for x in operands])

    def reshape(self, x: Tensor, shape: Shape) -> Tensor:
        """`x` in another shape; `x` itself when it has that one."""
        if same_shape(x.shape, shape):
            return x
        return self.emit("reshape", [x], type=x.type.with_shape(shape))

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """`x` with its axes in another order."""
        if list(perm) == list(range(x.rank)):
            return x
        return self.emit("transpose", [x], {"perm": tuple(perm)})

    def swap(self, x: Tensor, a: int, b: int) -> Tensor:
        """`x` with two axes exchanged."""
        perm = list(range(x.rank))
        perm[x.axis(a)], perm[x.axis(b)] = x.axis(b), x.axis(a)
        return self.transpose(x, perm)

    def expand(self, x: Tensor, shape: Shape) -> Tensor:
        """`x` broadcast to `shape`."""
        if same_shape(x.shape, shape):
            return x
        return self.emit("expand", [x], type=x.type.with_shape(shape))

    def slice(self, x: Tensor, axis: int, start: Dim, size: Dim, step: int = 1) -> Tensor:
        """`size` elements along one axis; an integer extent bounds a symbolic size."""
        extent = x.shape[axis]
        if size == 0:
            raise NotSupported("takes no element")
        if isinstance(extent, int) and isinstance(start, int) and step == 1:
            self.symbols.limit(size, extent - start)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        if step == 1 and same_shape(x.shape, shape):
            return x
        starts = tuple(start if i == axis else 0 for i in range(x.rank))
        attrs: dict[str, Attr] = {"starts": starts}
        if step != 1:
            attrs["steps"] = tuple(step if i == axis else 1 for i in range(x.rank))
        return self.emit("slice", [x], attrs, type=x.type.with_shape(shape))

    def gather(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        """Slices of `x`; an index that is a range bounds its own extent."""
        match x.shape[axis], index.range:
            case int() as rows, Range(start=int() as start, step=1, axis=int() as along):
                self.symbols.limit(index.shape[along], rows - start)
        return self.emit("gather", [x, self.cast(index, DType.I64)], {"axis": axis})

    def check(self, value: Value) -> None:
        """Compares what was emitted with what torch says the node gives.

        Raises:
            InternalError: if a type differs.
        """
        values = value if isinstance(value, tuple) else (value,)
        expected = self.expected if isinstance(self.expected, tuple | list) else (self.expected,)
        for found, fake in zip(values, expected, strict=True):
            if not isinstance(found, Tensor) or not isinstance(fake, torch.Tensor):
                continue
            wanted = self.symbols.type(fake)
            if not found.type.same(wanted):
                raise InternalError(
                    f"the importer gives {found.type} where torch gives {wanted}", (self.source,)
                )


def promoted(operands: Sequence[Operand]) -> DType:
    """The element type in which ATen computes: tensors before rank-0 tensors before numbers.

    A kind of operand of lower priority counts only when it is of a higher category (bool, integer,
    floating); then a number brings the default type of its category.
    """
    groups: list[list[torch.dtype]] = [[], [], []]
    for operand in operands:
        if isinstance(operand, Tensor):
            groups[0 if operand.rank else 1].append(torch_dtype(operand.dtype))
        elif isinstance(operand, bool):
            groups[2].append(torch.bool)
        else:
            is_float = isinstance(operand, float)
            groups[2].append(torch.get_default_dtype() if is_float else torch.int64)
    result: torch.dtype | None = None
    for dtypes in filter(None, groups):
        combined = reduce(torch.promote_types, dtypes)
        if result is None:
            result = combined
        elif _category(combined) > _category(result):
            result = torch.promote_types(result, combined)
    assert result is not None, "an operator without operands has no element type"
    return dtype_of(result)


def _category(dtype: torch.dtype) -> int:
    return 2 if dtype.is_floating_point else 1 if dtype is not torch.bool else 0


def _shortest(value: Attr) -> Attr:
    """Numbers with the fewest digits that are the same in single precision."""
    if isinstance(value, tuple):
        return tuple(map(_shortest, value))
    return float(str(np.float32(value))) if isinstance(value, float) else value
