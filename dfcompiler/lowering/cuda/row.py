"""A normalization with what makes its rows, on a GPU: the rows never leave the registers.

    const auto _row = [&](auto& _v, int64_t _first, int _count) {
      float _p0[4]; load_pack(_p0, _g0 + _first, _count);     16 bytes of each operand
      for _e: _v[_e] = _p0[_e] + _p1[_e] + …;                 the operators, element by element
    };
    layer_norm_row(_o, _row, gamma, beta, …)                  statistics of what it returns

Bytes: each operand is read once and the result written once.
"""

from __future__ import annotations

from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.normalization import HEADER, KERNELS, add_rows
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.maps import MapBody, pointer, whole
from dfcompiler.lowering.normalization import NORM_WORK, norm_call
from dfcompiler.lowering.row import Row
from dfcompiler.lowering.scalars import compute_type, cost
from dfcompiler.lowering.symbolic import expression, product


def lower_row(context: Context, op: Op) -> None:
    """The region [gathers and element-wise operators]; normalization.

    Raises:
        UnsupportedError: if a row is not contiguous, or the region holds anything else.
    """
    *before, norm = op.region
    row = PackedRow(context, op)
    for inner in before:
        row.add(inner)
    context.include(context.backend.scalars)
    context.include(HEADER, KERNELS)
    value = row.value(norm.inputs[0])
    call, parameters = norm_call(context, norm, "_row")
    lines = [
        *row.heads,
        "const auto _row = [&](auto& _v, int64_t _first, int _count) {",
        *(f"  {line}" for line in row.loads),
        "#pragma unroll",
        f"  for (int _e = 0; _e < {row.pack}; ++_e) {{",
        *(f"    {line}" for line in row.lines),
        f"    _v[_e] = {value};",
        "  }",
        "};",
        call,
    ]
    writes = [pointer(context, "_o", context.array(op.result), row.begin, (op.type.rank - 1,))]
    if row.gathers:
        writes.append(whole(context, "_report", context.status()))
    extents = [expression(dim) for dim in op.type.shape]
    body = MapBody(
        label=norm.kind,
        ranges=[(f"_i{a}", extents[a]) for a in row.kept],
        reads=[*row.reads, *parameters],
        writes=writes,
        code="\n".join(lines),
        work=product(extents) * (sum(map(cost, before)) + NORM_WORK),
    )
    add_rows(context, op, body, f"{len(before)} operators and a normalization: ")


class PackedRow(Row):
    """The code of element `_e` of a pack of a row.

    Attributes:
        pack: elements of a pack.
        loads: lines that load the packs of the operands.
    """

    dtypes = (DType.F32, DType.F64, DType.F16, DType.BF16)

    def __init__(self, context: Context, op: Op) -> None:
        super().__init__(context, op)
        self.pack = LOAD_BYTES // op.type.dtype.bytes
        self.loads: list[str] = []

    def element(self, row: str, name: str) -> str:
        """An element of the pack that a line loads."""
        pack, ctype = f"_p{len(self.loads)}", compute_type(self.types[name].dtype)
        self.loads.append(
            f"{ctype} {pack}[{self.pack}]; dfc::rows::load_pack({pack}, {row} + _first, _count);"
        )
        return f"{pack}[_e]"

    def only(self, row: str, name: str) -> str:
        """The element in the type that it is computed with."""
        return f"{compute_type(self.types[name].dtype)}({row}[0])"
