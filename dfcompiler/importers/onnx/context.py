"""What an operator's importer works with: values in, values out, operators emitted between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dfcompiler.importers.onnx.content_arithmetic import combine
from dfcompiler.importers.onnx.contents import (
    SMALL,
    Content,
    Elements,
    Grid,
    Number,
    elements,
    grid,
    small_grid,
    uniform,
)
from dfcompiler.importers.onnx.emission import INLINE, emit_content
from dfcompiler.importers.onnx.symbols import Symbols
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import OPERATORS, Attr, Attrs, Container, DType, Op, OpClass, Role, TensorType
from dfcompiler.ir.dims import Dim, Shape, equal, same_shape
from dfcompiler.ir.rewrite import Builder


@dataclass
class Context:
    """The program under construction.

    Attributes:
        symbols: the dimensions' names, equations and bounds.
        builder: the operators so far.
        weights: the weight containers so far.
        data: their values.
        source: name of the node that is being imported.
    """

    symbols: Symbols
    builder: Builder = field(default_factory=Builder)
    weights: dict[str, Container] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    source: str = ""

    # ------------------------------------------------------------------------------ values

    def name(self, value: Value) -> str:
        """The program's name of `value`; makes it exist if it does not yet."""
        if not value.name:
            if value.emit is not None:
                value.name = value.emit()
            else:
                assert value.content is not None
                value.name = emit_content(self.builder, value, self.weight)
        return value.name

    def known(self, type: TensorType, content: Content) -> Value:  # noqa: A002
        """A value that exists only as contents."""
        content = small_grid(content, type)
        return Value(type, content=content, source=self.source)

    def array(self, array: np.ndarray, source: str = "") -> Value:
        """A value with known elements: contents if small, a weight otherwise."""
        type_ = TensorType(DType.of(array.dtype), array.shape)
        content = Elements(array) if array.size <= SMALL else None
        value = Value(type_, content=content, source=source or self.source)
        if array.size > INLINE:
            value.emit = lambda: self.weight(value.source, array)
        return value

    def scalar(self, number: float | int | bool, dtype: DType) -> Value:
        """A value of rank 0."""
        with np.errstate(over="ignore"):
            return self.array(np.asarray(number).astype(dtype.numpy))

    def filled(self, number: Number, dtype: DType, shape: Shape) -> Value:
        """A value that is `number` everywhere."""
        return self.known(TensorType(dtype, shape), Grid(number, (0,) * len(shape)))

    def iota(self, axis: int, shape: Shape) -> Value:
        """The index along `axis`, broadcast to `shape`."""
        steps = tuple(int(i == axis) for i in range(len(shape)))
        return self.known(TensorType(DType.I64, shape), Grid(0, steps))

    def dims(self, values: Sequence[Dim]) -> Value:
        """A vector of int64 dimensions."""
        return self.known(TensorType(DType.I64, (len(values),)), elements(values))

    def weight(self, name: str, array: np.ndarray) -> str:
        """Declares a weight and returns its name in the program."""
        label, number = name or "weight", 1
        while label in self.taken:
            number += 1
            label = f"{name or 'weight'}_{number}"
        self.taken.add(label)
        type_ = TensorType(DType.of(array.dtype), array.shape)
        self.weights[label] = Container(Role.WEIGHT, label, type_)
        self.data[label] = array
        self.builder.types[f"@{label}"] = type_
        return f"@{label}"

    # --------------------------------------------------------------------------- operators

    def emit(
        self,
        kind: str,
        values: Sequence[Value] = (),
        attrs: Mapping[str, Attr] | None = None,
        type: TensorType | None = None,  # noqa: A002
        source: str = "",
    ) -> str:
        """Appends an operator, whatever is known of its inputs, and returns its result's name."""
        names = [self.name(value) for value in values]
        origin = source or self.source
        return self.builder.op(kind, names, attrs, type=type, source=origin)

    def op(
        self,
        kind: str,
        values: Sequence[Value] = (),
        attrs: Mapping[str, Attr] | None = None,
        type: TensorType | None = None,  # noqa: A002
    ) -> Value:
        """The result of an operator: computed when all is known, appended otherwise.

        Raises:
            ValueError: from the type rule.
        """
        if OPERATORS[kind].op_class is OpClass.ELEMENTWISE and kind != "rotary":
            shape = self.broadcast([value.shape for value in values])
            if any(value.narrow for value in values):
                narrow = [value.narrow or value for value in values]
                return self.expand(self.op(kind, narrow, attrs), shape)
        probe = Op("", type or TensorType(DType.F32), kind, ("",) * len(values), Attrs(attrs))
        found = OPERATORS[kind].infer(probe, [value.type for value in values])
        known = self._computed(replace(probe, type=found), values)
        if known is not None:
            return known
        name = self.emit(kind, values, attrs, found)
        return Value(found, name, source=self.source)

    def _computed(self, op: Op, values: Sequence[Value]) -> Value | None:
        contents = [value.content for value in values if value.content is not None]
        if len(contents) != len(values) or not values:
            return None
        static = all(isinstance(dim, int) for dim in op.type.shape)
        arrays = [c.array for c in contents if isinstance(c, Elements) and c.is_numeric]
        if static and len(arrays) == len(values) and op.type.elements <= SMALL:
            try:
                with np.errstate(all="ignore"):
                    result = OPERATORS[op.kind].reference(op, arrays, {})
            except IndexError as error:
                raise ValueError(f"an index is out of range: {error}") from error
            return self.array(np.asarray(result).astype(op.type.dtype.numpy))
        if not all(value.dtype.is_integer for value in values):
            return None
        shapes = [value.shape for value in values]
        content = combine(op.kind, contents, shapes, op.type.shape)
        return None if content is None else self.known(op.type, content)

    # ------------------------------------------------------------------------------ shapes

    def broadcast(self, shapes: Sequence[Shape]) -> Shape:
        """The common shape; extents that must be equal are made equal."""
        rank = max((len(shape) for shape in shapes), default=0)
        result: list[Dim] = [1] * rank
        for shape in shapes:
            for axis, dim in enumerate(shape, rank - len(shape)):
                if isinstance(dim, int) and dim == 1:
                    continue
                if isinstance(result[axis], int) and result[axis] == 1:
                    result[axis] = dim
                elif not equal(result[axis], dim):
                    self.symbols.unify(result[axis], dim)
        return tuple(result)

    def unify(self, a: Dim, b: Dim) -> None:
        """Makes two extents equal, or raises ValueError."""
        self.symbols.unify(a, b)

    # ---------------------------------------------------------------------------- movement

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same elements in row-major order under another shape."""
        if same_shape(value.shape, shape):
            return value
        if isinstance(value.content, Elements) and all(isinstance(d, int) for d in shape):
            array = value.content.array.reshape(shape)
            return self.known(value.type.with_shape(shape), Elements(array))
        if isinstance(value.content, Grid):
            moved = _reshaped_grid(value.content, value.shape, shape)
            if moved is not None:
                return self.known(value.type.with_shape(shape), moved)
        return self.op("reshape", [value], type=value.type.with_shape(shape))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """Axes in another order."""
        perm = tuple(int(axis) for axis in perm)
        if perm == tuple(range(value.rank)):
            return value
        if isinstance(value.content, Grid):
            steps = tuple(value.content.steps[axis] for axis in perm)
            shape = tuple(value.shape[axis] for axis in perm)
            return self.known(value.type.with_shape(shape), Grid(value.content.offset, steps))
        return self.op("transpose", [value], {"perm": perm})

    def expand(self, value: Value, shape: Shape) -> Value:
        """Broadcast to `shape` and to nothing larger.

        Element-wise operators compute before they broadcast; the rest gets an operator.
        """
        if same_shape(value.shape, shape):
            return value
        type_ = value.type.with_shape(shape)
        single = uniform(value.content)
        if single is not None:
            return self.known(type_, Grid(single, (0,) * len(shape)))
        if isinstance(value.content, Grid):
            lead = (0,) * (len(shape) - value.rank)
            steps = tuple(
                0 if isinstance(dim, int) and dim == 1 else step
                for step, dim in zip(value.content.steps, value.shape, strict=True)
            )
            return self.known(type_, Grid(value.content.offset, lead + steps))
        source = self.source
        result = Value(type_, narrow=value, source=source)
        result.emit = lambda: self.emit("expand", [value], type=type_, source=source)
        return result

    def slice(
        self, value: Value, starts: Sequence[Dim], sizes: Shape, steps: Sequence[int] | None = None
    ) -> Value:
        """``sizes[a]`` elements of each axis, from ``starts[a]`` by ``steps[a]``."""
        strides = tuple(steps) if steps is not None else (1,) * value.rank
        plain = all(isinstance(s, int) and s == 0 for s in starts) and set(strides) <= {1}
        if plain and same_shape(sizes, value.shape):
            return value
        type_ = value.type.with_shape(tuple(sizes))
        static = all(isinstance(d, int) for d in (*starts, *sizes))
        if not (static and isinstance(value.content, Elements)):
            moved = _sliced_grid(value, starts, strides)
            if moved is not None:
                return self.known(type_, moved)
        attrs: dict[str, Any] = {"starts": tuple(starts)}
        if set(strides) - {1}:
            attrs["steps"] = strides
        content = value.content
        if isinstance(content, Elements) and static and type_.elements:
            ranges = [
                int(start) + stride * np.arange(int(size))
                for start, size, stride in zip(starts, sizes, strides, strict=True)
            ]
            return self.known(type_, Elements(content.array[np.ix_(*ranges)]))
        return self.op("slice", [value], attrs, type_)

    def cast(self, value: Value, dtype: DType) -> Value:
        """Converted to another element type; integer contents survive a change of width."""
        if value.dtype is dtype:
            return value
        content = value.content
        integers = value.dtype.is_integer and dtype.is_integer
        symbolic = isinstance(content, Grid) or (
            isinstance(content, Elements) and not content.is_numeric
        )
        if content is not None and integers and symbolic:
            return self.known(value.type.with_dtype(dtype), content)
        single = uniform(content)
        if isinstance(content, Grid) and isinstance(single, int | float | bool):
            number = np.asarray(single).astype(dtype.numpy).item()
            return self.filled(number, dtype, value.shape)
        return self.op("cast", [value], {"to": dtype})


def _sliced_grid(value: Value, starts: Sequence[Dim], strides: Sequence[int]) -> Grid | None:
    """The grid of every ``strides[a]``-th element from ``starts[a]`` on."""
    whole = grid(value.content, value.shape, value.rank)
    if whole is None:
        return None
    offset = whole.offset
    for start, step in zip(starts, whole.steps, strict=True):
        offset = offset if isinstance(step, int) and step == 0 else offset + start * step
    return Grid(offset, tuple(a * b for a, b in zip(whole.steps, strides, strict=True)))


def _reshaped_grid(content: Grid, old: Shape, new: Shape) -> Grid | None:
    """The grid under another shape, when only extents of 1 come and go."""
    if content.is_uniform:
        return Grid(content.offset, (0,) * len(new))
    wide = [axis for axis, dim in enumerate(old) if not (isinstance(dim, int) and dim == 1)]
    kept = [axis for axis, dim in enumerate(new) if not (isinstance(dim, int) and dim == 1)]
    if len(wide) != len(kept):
        return None
    if not all(equal(old[a], new[b]) for a, b in zip(wide, kept, strict=True)):
        return None
    steps: list[Dim] = [0] * len(new)
    for a, b in zip(wide, kept, strict=True):
        steps[b] = content.steps[a]
    return Grid(content.offset, tuple(steps))
