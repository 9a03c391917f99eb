"""Element-wise operators, and chains of them, as one map with one tasklet.

The code of a tasklet is pulled from its result: each value is asked for at an index, operators
that only move data (broadcast, transpose, slice, reshape) change the index, element-wise ones emit
a line of C++, and the operands outside become memlets. The loops follow the physical order of the
result, so that the innermost one is contiguous there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators import OPERATORS, OpClass
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.loops import loops_over_elements
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map
from dfcompiler.lowering.scalars import (
    compute_type,
    cost,
    literal,
    scalar_expression,
    stored_type,
)
from dfcompiler.lowering.symbolic import (
    expression,
    is_one,
    quotient_and_rest,
    text,
    unit_range,
)

Index: TypeAlias = tuple[Any, ...]

ELEMENTWISE = tuple(
    kind
    for kind, spec in OPERATORS.items()
    if spec.op_class is OpClass.ELEMENTWISE and kind not in ("rotary", "fused")
)


def lower_elementwise(context: Context, op: Op) -> None:
    """One operator, or the region of a fused one, as a map over the result's elements."""
    inner = op.region or (op,)
    state = context.new_state(op)
    add_map(context, state, elementwise_body(context, op, inner))
    kinds = f"{len(inner)} operators in one tasklet" if op.region else "one tasklet"
    context.record(KernelRecord(op, "dace-map", f"element-wise: {kinds}"))


def elementwise_body(context: Context, op: Op, inner: Sequence[Op]) -> MapBody:
    """The map that computes `op`, which is the last of `inner`.

    Raises:
        UnsupportedError: if the result or an operand has a tiled layout, or an operator no code.
    """
    if op.type.layout.is_tiled:
        raise UnsupportedError(f"{op.kind} cannot write the tiled layout of {op.result}: {op.type}")
    context.include(context.backend.scalars)
    loops = loops_over_elements(op.type)
    pull = _Pull(context, op, inner)
    result = pull.compute(inner[-1], tuple(loops.index))
    return MapBody(
        label=op.kind,
        ranges=loops.ranges,
        reads=pull.reads,
        writes=[Access("_o", context.array(op.result), unit_range(*loops.index))],
        code="\n".join([*pull.lines, f"_o = {pull.stored(result, op.type.dtype)};"]),
        work=loops.iterations * (1 + sum(map(cost, inner))),
        serial=1 if len(loops.ranges) > 1 else 0,
    )


class _Pull:
    """Emits the code of one element of a region, last operator first."""

    def __init__(self, context: Context, op: Op, inner: Sequence[Op]) -> None:
        self.context, self.op = context, op
        # A result that is an input too is a container: reading it means what it held before.
        self.producers = {o.result: o for o in inner if o.result not in op.inputs}
        self.types = context.types_of(op) | {o.result: o.type for o in inner}
        self.reads: list[Access] = []
        self.lines: list[str] = []
        self._known: dict[tuple[str, Index], str] = {}

    def value(self, name: str, index: Index) -> str:
        """The C++ name of element `index` of `name`."""
        key = (name, index)
        if key not in self._known:
            producer = self.producers.get(name)
            found = self._read(name, index) if producer is None else self.compute(producer, index)
            self._known[key] = found
        return self._known[key]

    def compute(self, op: Op, index: Index) -> str:
        """The C++ name of element `index` of the result of `op`."""
        move = _MOVES.get(op.kind)
        return move(self, op, index) if move else self._emit(op, index)

    def stored(self, name: str, dtype: DType) -> str:
        return f"{stored_type(dtype)}({name})" if dtype in (DType.F16, DType.BF16) else name

    def _read(self, name: str, index: Index) -> str:
        tensor = self.types[name]
        if tensor.layout.is_tiled:
            raise UnsupportedError(f"{self.op.kind} cannot read the tiled layout of {name}")
        connector = f"_a{len(self.reads)}"
        self.reads.append(Access(connector, self.context.array(name), unit_range(*index)))
        if tensor.dtype not in (DType.F16, DType.BF16):
            return connector
        self.lines.append(f"const float {connector}_f = {connector};")
        return f"{connector}_f"

    def _emit(self, op: Op, index: Index) -> str:
        arguments = [self.value(name, self.broadcast(name, index)) for name in op.inputs]
        dtypes = [self.types[name].dtype for name in op.inputs]
        constants = [self.constant(name) for name in op.inputs]
        code = scalar_expression(op, arguments, dtypes, constants)
        return self.assign(code, op.type.dtype)

    def assign(self, code: str, dtype: DType) -> str:
        """A line that gives `code` a name."""
        name = f"_t{len(self.lines)}"
        self.lines.append(f"const {compute_type(dtype)} {name} = {code};")
        return name

    def broadcast(self, name: str, index: Index) -> Index:
        """The index into an operand that numpy broadcasting gives."""
        shape = self.types[name].shape
        tail = index[len(index) - len(shape) :]
        return tuple(0 if is_one(dim) else i for dim, i in zip(shape, tail, strict=True))

    def constant(self, name: str) -> object:
        """The number that an operand is, if it is known now."""
        producer = self.producers.get(name)
        if producer is None or producer.kind != "constant":
            return None
        value = producer.attr("value")
        return None if isinstance(value, tuple) else value


def _forward(pull: _Pull, op: Op, index: Index) -> str:
    return pull.value(op.inputs[0], index)


def _expand(pull: _Pull, op: Op, index: Index) -> str:
    (name,) = op.inputs
    return pull.value(name, pull.broadcast(name, index))


def _transpose(pull: _Pull, op: Op, index: Index) -> str:
    source: list[Any] = [0] * len(index)
    for position, axis in enumerate(op.attr("perm")):
        source[axis] = index[position]
    return pull.value(op.inputs[0], tuple(source))


def _slice(pull: _Pull, op: Op, index: Index) -> str:
    steps = op.attr("steps") or (1,) * len(index)
    source = tuple(
        expression(start) + i * expression(step)
        for start, i, step in zip(op.attr("starts"), index, steps, strict=True)
    )
    return pull.value(op.inputs[0], source)


def _reshape(pull: _Pull, op: Op, index: Index) -> str:
    (name,) = op.inputs
    return pull.value(name, reshaped_index(index, op.type.shape, pull.types[name].shape))


def reshaped_index(index: Index, shape: Sequence[Dim], source: Sequence[Dim]) -> Index:
    """Where element `index` of a tensor of `shape` lies in the tensor it was reshaped from."""
    kept = [(i, dim) for i, dim in zip(index, shape, strict=True) if not is_one(dim)]
    if [dim for _, dim in kept] == [dim for dim in source if not is_one(dim)]:
        rest = iter(i for i, _ in kept)
        return tuple(0 if is_one(dim) else next(rest) for dim in source)
    position: Any = 0
    for i, dim in zip(index, shape, strict=True):
        position = position * expression(dim) + i
    found: list[Any] = []
    for dim in reversed(source):
        if len(found) == len(source) - 1:
            found.append(position)
            break
        position, rest = quotient_and_rest(position, expression(dim))
        found.append(rest)
    return tuple(reversed(found))


def _constant(pull: _Pull, op: Op, index: Index) -> str:
    value, dtype = op.attr("value"), op.type.dtype
    if not isinstance(value, tuple):
        return literal(value, dtype)
    numbers = [literal(number, dtype) for number in _flat(value)]
    if len(numbers) == 1:
        return numbers[0]
    position: Any = 0
    for i, dim in zip(index, op.type.shape, strict=True):
        position = position * expression(dim) + i
    table, ctype = f"_table{len(pull.lines)}", compute_type(dtype)
    pull.lines.append(f"static const {ctype} {table}[] = {{{', '.join(numbers)}}};")
    return pull.assign(f"{table}[{text(position)}]", dtype)


def _dim(pull: _Pull, op: Op, index: Index) -> str:
    value = text(expression(op.attr("value")))
    return pull.assign(f"{compute_type(op.type.dtype)}({value})", op.type.dtype)


def _iota(pull: _Pull, op: Op, index: Index) -> str:
    start, step = expression(op.attr("start", 0)), expression(op.attr("step", 1))
    value = f"{text(start)} + int64_t({text(step)}) * {text(index[0])}"
    return pull.assign(f"{compute_type(op.type.dtype)}({value})", op.type.dtype)


_MOVES = {
    "copy": _forward,
    "expand": _expand,
    "transpose": _transpose,
    "slice": _slice,
    "reshape": _reshape,
    "constant": _constant,
    "dim": _dim,
    "iota": _iota,
}


def _flat(value: object) -> Iterable[object]:
    if not isinstance(value, tuple):
        yield value
        return
    for item in value:
        yield from _flat(item)
