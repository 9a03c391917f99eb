"""A normalization with what makes its rows: gathers and element-wise operators, one row at a time.

_o[j] = table0[index0][j] + table1[index1][j] + x2[j]      a loop over the row, vectorized
layer_norm_row(_o, _o, gamma, beta, …)                     the row is in the first-level cache
"""

from __future__ import annotations

from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.elementwise import is_one
from dfcompiler.lowering.indexing import checked_position
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer, whole
from dfcompiler.lowering.normalization import HEADER, NORM_WORK, norm_call
from dfcompiler.lowering.scalars import compute_type, cost, literal, scalar_expression
from dfcompiler.lowering.symbolic import expression, product, symbol, text, unit_range


def lower_row(context: Context, op: Op) -> None:
    """The region [gathers and element-wise operators]; normalization.

    Raises:
        UnsupportedError: if a row is not contiguous, or the region holds anything else.
    """
    *before, norm = op.region
    row = Row(context, op)
    for inner in before:
        row.add(inner)
    context.include(HEADER)
    call, parameters = norm_call(context, norm, "_o")
    lines = [*row.heads, "#pragma GCC ivdep", f"for (int64_t _j = 0; _j < {row.count}; ++_j) {{"]
    lines += [f"  {line}" for line in row.lines]
    lines += [f"  _o[_j] = {row.names[norm.inputs[0]]};", "}", call]
    writes = [pointer(context, "_o", context.array(op.result), row.begin, (op.type.rank - 1,))]
    if row.gathers:
        writes.append(whole(context, "_report", context.status()))
    extents = [expression(dim) for dim in op.type.shape]
    work = sum(map(cost, before)) + NORM_WORK
    body = MapBody(
        label=norm.kind,
        ranges=[(f"_i{a}", extents[a]) for a in row.kept],
        reads=[*row.reads, *parameters],
        writes=writes,
        code="\n".join(lines),
        work=product(extents) * work,
    )
    add_map(context, context.new_state(op), body)
    kinds = f"{len(before)} operators and a normalization, a row at a time"
    context.record(KernelRecord(op, "dace-map + row function", kinds))


class Row:
    """The code of one element of a row, operator by operator.

    Attributes:
        dtypes: element types that it reads.
        names: C++ expressions of the values, at the element.
        heads: lines in front of the loop.
        lines: lines in the loop.
        reads: what the tasklet reads.
    """

    dtypes: tuple[DType, ...] = (DType.F32, DType.F64)

    def __init__(self, context: Context, op: Op) -> None:
        self.context, self.op = context, op
        rank = op.type.rank
        self.kept = [a for a in range(rank - 1) if not is_one(op.type.shape[a])]
        self.begin: list[Any] = [symbol(f"_i{a}") if a in self.kept else 0 for a in range(rank)]
        self.count = text(expression(op.type.shape[-1]))
        self.names: dict[str, str] = {}
        self.types = {name: context.type(name) for name in op.inputs}
        self.heads: list[str] = []
        self.lines: list[str] = []
        self.reads: list[Access] = []
        self.gathers = 0
        if not context.is_contiguous(op.result):
            raise self.unsupported(f"{op.result} is not contiguous")

    def add(self, inner: Op) -> None:
        """Emits one operator of the region."""
        self.types[inner.result] = inner.type
        if inner.kind == "constant":
            self.names[inner.result] = literal(inner.attr("value"), inner.type.dtype)
            return
        if inner.kind == "gather":
            self.names[inner.result] = self.gathered(inner)
            return
        arguments = [self.value(name) for name in inner.inputs]
        dtypes = [self.types[name].dtype for name in inner.inputs]
        code = scalar_expression(inner, arguments, dtypes, [None] * len(dtypes))
        name = f"_t{len(self.lines)}"
        self.lines.append(f"const {compute_type(inner.type.dtype)} {name} = {code};")
        self.names[inner.result] = name

    def value(self, name: str) -> str:
        """The element of an operand, or the only one of its row."""
        if name not in self.names:
            shape = self.types[name].shape
            tail = self.begin[len(self.begin) - len(shape) :]
            begin = [0 if is_one(dim) else i for dim, i in zip(shape, tail, strict=True)]
            row = self.pointer(name, begin, (len(shape) - 1,))
            along = bool(shape) and not is_one(shape[-1])
            self.names[name] = self.element(row, name) if along else self.only(row, name)
        return self.names[name]

    def element(self, row: str, name: str) -> str:
        """C++ of the element of the row of `name` to which `row` points."""
        return f"{row}[_j]"

    def only(self, row: str, name: str) -> str:
        """C++ of the only element of such a row."""
        return f"{row}[0]"

    def gathered(self, inner: Op) -> str:
        """Element `_j` of the row of a table that an index names."""
        data, index = inner.inputs
        table = self.pointer(data, [0, 0], (0, 1))
        number, self.gathers = self.gathers, self.gathers + 1
        position = Access(f"_k{number}", self.context.array(index), unit_range(*self.begin[:-1]))
        self.reads.append(position)
        at = checked_position(self.context, inner, data, 0, f"_k{number}")
        step = text(self.context.stride(data, 0))
        self.heads.append(f"const auto* _g{number} = {table} + {at} * {step};")
        return self.element(f"_g{number}", data)

    def pointer(self, name: str, begin: list[Any], axes: tuple[int, ...]) -> str:
        """A connector that points to the row of an operand."""
        tensor = self.types[name]
        if tensor.dtype not in self.dtypes:
            raise self.unsupported(f"{name} has elements of {tensor.dtype.value}")
        row = bool(tensor.shape) and not is_one(tensor.shape[-1])
        if row and text(self.context.stride(name, tensor.rank - 1)) != "1":
            raise self.unsupported(f"the rows of {name} are not contiguous")
        connector = f"_x{len(self.reads)}"
        begin = begin or [0]
        axes = tuple(axis for axis in axes if axis >= 0)
        self.reads.append(pointer(self.context, connector, self.context.array(name), begin, axes))
        return connector

    def unsupported(self, reason: str) -> UnsupportedError:
        """The error for a region without such a kernel."""
        return UnsupportedError(
            f"rows of {self.op.type} cannot be made and normalized at once: {reason}",
            (self.op.result, self.op.source),
        )
