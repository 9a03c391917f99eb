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
from dfcompiler.lowering.cuda.normalization import HEADER, add_normalized_rows
from dfcompiler.lowering.cuda.row_maps import KERNELS
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.row import Row
from dfcompiler.lowering.scalars import compute_type


def lower_row(context: Context, op: Op) -> None:
    """The region [gathers and element-wise operators]; normalization.

    Raises:
        UnsupportedError: if a row is not contiguous, or the region holds anything else.
    """
    body = PackedRow(context, op).body()
    context.include(context.backend.scalars)
    context.include(HEADER, KERNELS)
    add_normalized_rows(context, op, body, f"{len(op.region) - 1} operators and a normalization: ")


class PackedRow(Row):
    """The code of element `_e` of a pack of a row.

    Attributes:
        pack: elements of a pack.
        loads: lines that load the packs of the operands.
    """

    dtypes = (DType.F32, DType.F64, DType.F16, DType.BF16)
    made = "_row"

    def __init__(self, context: Context, op: Op) -> None:
        super().__init__(context, op)
        self.pack = LOAD_BYTES // op.type.dtype.bytes
        self.loads: list[str] = []

    def loop(self, value: str) -> list[str]:
        """The function that makes a pack of a row, for the threads of its block to call."""
        return [
            f"const auto {self.made} = [&](auto& _v, int64_t _first, int _count) {{",
            *(f"  {line}" for line in self.loads),
            "#pragma unroll",
            f"  for (int _e = 0; _e < {self.pack}; ++_e) {{",
            *(f"    {line}" for line in self.lines),
            f"    _v[_e] = {value};",
            "  }",
            "};",
        ]

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
