"""Maps over rows whose tasklets call device functions: a block of threads for each row."""

from __future__ import annotations

from typing import Any

from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.maps import add_row_map
from dfcompiler.lowering.cuda.threads import row_threads
from dfcompiler.lowering.maps import MapBody
from dfcompiler.lowering.symbolic import product

KERNELS = ("cuda",)
"""The generated file that calls device functions."""


def add_rows(context: Context, op: Op, body: MapBody, length: Any, dtype: DType) -> int:
    """Adds a map with a block for each row of `length` elements of `dtype`.

    Returns:
        the threads of a block.
    """
    rows = product(extent for _, extent in body.ranges)
    threads = row_threads(context, length, rows, dtype.bytes)
    add_row_map(context, context.new_state(op), body, threads)
    return threads
