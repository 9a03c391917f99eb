"""How many threads share a row, and what each of them has of it.

A thread loads 16 bytes at a time and keeps what it loads in registers (`kernels/cuda/row_packs.h`).
All its loads are under way together, so that a multiprocessor has enough of them to reach the
bandwidth of the memory: about 25 KB, which is its share of the rate times 0.7 µs of latency.

    row               team                      a thread has          threads of a block
    ≤ 32 elements     1 … 32 lanes of a warp    up to 32 elements     128: several rows
    × 32 lanes        (a power of two)
    longer            a block                   up to 16 elements     up to 1024: one row

Lanes of a warp meet no barrier. Few long rows get all the threads that have something to load,
because nothing else hides their latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfcompiler.lowering.context import Context
from dfcompiler.lowering.symbolic import is_static

WARP, MOST = 32, 1024
LOAD_BYTES = 16
"""What a thread loads and stores at once."""
_LANE_ELEMENTS, _BLOCK_ELEMENTS = 32, 16
"""Elements of a row in the registers of a thread: more where no other warp waits for it."""
_BLOCK_THREADS = 128
"""Threads of a block of several rows."""
_FREE_EXTENT = 256
"""Threads of a row whose length is only known when it runs."""


@dataclass(frozen=True)
class Team:
    """The threads that share a row.

    Attributes:
        threads: lanes of a warp, a power of two, or a multiple of 32: a block.
        packs: of 16 bytes that each of them keeps in registers.
        rows: of a block; 1 where the team is a block.
    """

    threads: int
    packs: int
    rows: int = 1

    def __str__(self) -> str:
        together = f"{self.threads} threads a row"
        return f"{together}, {self.rows} rows a block" if self.rows > 1 else together


def team_of(context: Context, length: Any, rows: Any, element_bytes: int) -> Team:
    """The team for each of `rows` rows of `length` elements."""
    held = max(1, _BLOCK_ELEMENTS * element_bytes // LOAD_BYTES)
    if not is_static(length):
        return Team(_FREE_EXTENT, held)
    loads = max(1, -(-int(length) * element_bytes // LOAD_BYTES))
    most = max(1, _LANE_ELEMENTS * element_bytes // LOAD_BYTES)
    if loads <= WARP * most:
        lanes = _lanes(loads, most)
        return Team(lanes, -(-loads // lanes), _rows_of_block(context, lanes, rows))
    few = is_static(rows) and int(rows) < 4 * context.gpu.multiprocessors
    wanted = loads if few else -(-loads // 2)
    threads = min(MOST, -(-wanted // WARP) * WARP)
    return Team(threads, min(held, -(-loads // threads)))


def _lanes(loads: int, most: int) -> int:
    """Lanes that have equally many loads, at most `most`, or a warp."""
    lanes = WARP
    while loads % lanes and lanes > 1:
        lanes //= 2
    if loads // lanes <= most:
        return lanes
    lanes = WARP
    while lanes // 2 >= loads:
        lanes //= 2
    return lanes


def _rows_of_block(context: Context, lanes: int, rows: Any) -> int:
    """Rows of a block: fewer where multiprocessors would have none."""
    most = _BLOCK_THREADS // lanes
    while is_static(rows) and most > 1 and int(rows) < 2 * most * context.gpu.multiprocessors:
        most //= 2
    return most
