"""A normalization with what makes its rows, on a GPU: the rows never leave the registers.

    const auto _made = [&](auto& _v, int64_t _first, auto _count) {
      float _p0[4]; load_pack(_p0, _g0 + _first, _count);     16 bytes of each operand
      for _e: _v[_e] = _p0[_e] + _p1[_e] + …;                 the operators, element by element
    };
    const auto _row = row_of<32, 4>(are_aligned(_g0, …), _made);
    layer_norm_row(_o, _row, gamma, beta, …)                  statistics of what it returns

Bytes: each operand is read once and the result written once.
"""

from __future__ import annotations

from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.normalization import HEADER, add_normalized_rows, team_along
from dfcompiler.lowering.cuda.row_maps import KERNELS, row_of
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.row import Row
from dfcompiler.lowering.scalars import compute_type


def lower_row(context: Context, op: Op) -> None:
    """The region [gathers and element-wise operators]; normalization.

    Raises:
        UnsupportedError: if a row is not contiguous, or the region holds anything else.
    """
    row = PackedRow(context, op)
    body = row.body()
    context.include(context.backend.scalars)
    context.include(HEADER, KERNELS)
    what = f"{len(op.region) - 1} operators and a normalization: "
    add_normalized_rows(context, op, body, row.team, what)


class PackedRow(Row):
    """The code of element `_e` of a pack of a row.

    Attributes:
        team: the threads that share the row.
        pack: elements of a pack.
        loads: lines that load the packs of the operands.
        operands: pointers to the rows that packs are loaded from.
    """

    dtypes = (DType.F32, DType.F64, DType.F16, DType.BF16)
    made = "_row"

    def __init__(self, context: Context, op: Op) -> None:
        super().__init__(context, op)
        self.team = team_along(context, op, op.type.rank - 1)
        self.pack = LOAD_BYTES // op.type.dtype.bytes
        self.loads: list[str] = []
        self.operands: list[str] = []

    def loop(self, value: str) -> list[str]:
        """The function that makes a pack of a row, and the row of which it is."""
        aligned = f"dfc::rows::are_aligned({', '.join(self.operands)})"
        return [
            "const auto _made = [&](auto& _v, int64_t _first, auto _count) {",
            *(f"  {line}" for line in self.loads),
            "#pragma unroll",
            f"  for (int _e = 0; _e < {self.pack}; ++_e) {{",
            *(f"    {line}" for line in self.lines),
            f"    _v[_e] = {value};",
            "  }",
            "};",
            f"const auto {self.made} = {row_of(self.team, '_made', aligned)};",
        ]

    def element(self, row: str, name: str) -> str:
        """An element of the pack that a line loads."""
        pack, ctype = f"_p{len(self.loads)}", compute_type(self.types[name].dtype)
        self.operands.append(row)
        self.loads.append(
            f"{ctype} {pack}[{self.pack}]; dfc::rows::load_pack({pack}, {row} + _first, _count);"
        )
        return f"{pack}[_e]"

    def only(self, row: str, name: str) -> str:
        """The element in the type that it is computed with."""
        return f"{compute_type(self.types[name].dtype)}({row}[0])"
