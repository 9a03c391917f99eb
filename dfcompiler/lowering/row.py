"""A normalization with what makes its rows: gathers and element-wise operators, one row at a time.

_o[j] = table0[index0][j] + table1[index1][j] + x2[j]      a loop over the row, vectorized
layer_norm_row(_o, _o, gamma, beta, …)                     the row is in the first-level cache
"""

from __future__ import annotations

from typing import Any

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.indexing import checked_position, report
from dfcompiler.lowering.loops import loops_over
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.maps import Access, MapBody, add_map, pointer
from dfcompiler.lowering.normalization import HEADER, NORM_WORK, norm_call
from dfcompiler.lowering.scalars import compute_type, cost, literal, scalar_expression
from dfcompiler.lowering.symbolic import element_count, expression, is_one, text, unit_range


def lower_row(context: Context, op: Op) -> None:
    """The region [gathers and element-wise operators]; normalization.

    Raises:
        UnsupportedError: if a row is not contiguous, or the region holds anything else.
    """
    body = Row(context, op).body()
    context.include(HEADER)
    add_map(context, context.new_state(op), body)
    kinds = f"{len(op.region) - 1} operators and a normalization, a row at a time"
    context.record(KernelRecord(op, "dace-map + row function", kinds))


class Row:
    """The code of one element of a row, operator by operator.

    Attributes:
        dtypes: element types that it reads.
        made: C++ of the row that is normalized.
        rows: loops over the rows.
        names: C++ expressions of the values, at the element.
        types: the types of the values.
        heads: lines in front of the loop over the elements.
        lines: lines in it.
        reads: what the tasklet reads.
        gathers: how many operators read positions from an index.
    """

    dtypes: tuple[DType, ...] = (DType.F32, DType.F64)
    made = "_o"

    def __init__(self, context: Context, op: Op) -> None:
        self.context, self.op = context, op
        self.rows = loops_over(op.type, range(op.type.rank - 1))
        self.names: dict[str, str] = {}
        self.types: dict[str, TensorType] = {name: context.type(name) for name in op.inputs}
        self.heads: list[str] = []
        self.lines: list[str] = []
        self.reads: list[Access] = []
        self.gathers = 0
        if not context.is_contiguous(op.result):
            raise self.unsupported(f"{op.result} is not contiguous")

    def body(self) -> MapBody:
        """The map over the rows; its tasklet makes one and normalizes it.

        Raises:
            UnsupportedError: if a row is not contiguous, or the region holds anything else.
        """
        *before, norm = self.op.region
        for inner in before:
            self.add(inner)
        value = self.value(norm.inputs[0])
        call, parameters = norm_call(self.context, norm, self.made)
        result, last = self.context.array(self.op.result), self.op.type.rank - 1
        writes = [pointer(self.context, "_o", result, self.rows.index, (last,))]
        if self.gathers:
            writes.append(report(self.context))
        return MapBody(
            label=norm.kind,
            ranges=self.rows.ranges,
            reads=[*self.reads, *parameters],
            writes=writes,
            code="\n".join([*self.heads, *self.loop(value), call]),
            work=element_count(self.op.type.shape) * (sum(map(cost, before)) + NORM_WORK),
        )

    def loop(self, value: str) -> list[str]:
        """The lines that make a row of which each element is `value`."""
        return [
            "#pragma GCC ivdep",
            f"for (int64_t _j = 0; _j < {text(expression(self.op.type.shape[-1]))}; ++_j) {{",
            *(f"  {line}" for line in self.lines),
            f"  _o[_j] = {value};",
            "}",
        ]

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
            tail = self.rows.index[self.op.type.rank - len(shape) :]
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
        place = unit_range(*self.rows.index[:-1])
        self.reads.append(Access(f"_k{number}", self.context.array(index), place))
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
        axes = tuple(axis for axis in axes if axis >= 0)
        self.reads.append(pointer(self.context, connector, self.context.array(name), begin, axes))
        return connector

    def unsupported(self, reason: str) -> UnsupportedError:
        """The error for a region without such a kernel."""
        return UnsupportedError(
            f"rows of {self.op.type} cannot be made and normalized at once: {reason}",
            (self.op.result, self.op.source),
        )
