"""How many threads share a row.

A thread loads 16 bytes at a time and keeps 16 elements in registers (`kernels/cuda/row_packs.h`).
Where rows outnumber what the device runs at once, a thread takes two loads: the barriers of a row
then cost fewer warps, and the loads of one thread are under way together. Few rows get all the
threads that have something to load, because nothing else hides their latency.
"""

from __future__ import annotations

from typing import Any

from dfcompiler.lowering.context import Context
from dfcompiler.lowering.symbolic import is_static

WARP, MOST = 32, 1024
LOAD_BYTES = 16
"""What a thread loads and stores at once."""
_FREE_EXTENT = 256
"""Threads of a row whose length is only known when it runs."""


def row_threads(context: Context, length: Any, rows: Any, element_bytes: int) -> int:
    """Threads of the block for one row of `length` elements: a multiple of a warp."""
    if not is_static(length):
        return _FREE_EXTENT
    loads = -(-int(length) * element_bytes // LOAD_BYTES)
    few = is_static(rows) and int(rows) < 4 * context.gpu.multiprocessors
    wanted = loads if few else -(-loads // 2)
    return max(WARP, min(MOST, -(-wanted // WARP) * WARP))
