"""How many lines of a tile of rows meet in one set of a cache.

A line goes into the set that its address modulo the size of a way says. Rows that are a multiple of
that size apart share their sets, however much of the cache is free:

    rows 12 KB apart, ways of 4 KB           rows 12 KB + 192 B apart

    set  0 1 2 3 4 5 6 7 8 …                 set  0 1 2 3 4 5 6 7 8 …
    row 0 ████████                           row 0 ████████
    row 1 ████████                           row 1       ████████
    row 2 ████████                           row 2             ████████
"""

from __future__ import annotations

from collections import Counter

from dfcompiler.analysis.tiling import Tile

LINE_BYTES = 64
WAY_BYTES = 4096
"""Bytes of a way of an L1 that is indexed by the address within a page, as on x86 and Arm."""


def most_in_a_set(rows: int, row_bytes: int, pitch_bytes: int) -> int:
    """Lines of the fullest set when it holds the beginnings of `rows` rows.

    Args:
        rows: rows below one another.
        row_bytes: bytes of each that are in the cache, from its beginning.
        pitch_bytes: distance between rows, a multiple of a line.
    """
    lines, sets = -(-row_bytes // LINE_BYTES), WAY_BYTES // LINE_BYTES
    pitch = pitch_bytes // LINE_BYTES
    found = Counter((row * pitch + line) % sets for row in range(rows) for line in range(lines))
    return max(found.values(), default=0)


def padding(rows: int, row_bytes: int, pitch_bytes: int, ways: int) -> int:
    """Bytes to move rows apart so that no set holds more lines of them than `ways`.

    The fewest whole lines; where none suffice, those with the emptiest sets. 0 for a pitch that is
    no multiple of a line: its rows do not meet.
    """
    if pitch_bytes % LINE_BYTES:
        return 0

    def fullest(pad: int) -> int:
        return max(ways, most_in_a_set(rows, row_bytes, pitch_bytes + pad))

    return min(range(0, WAY_BYTES // 4, LINE_BYTES), key=fullest)


def row_pad(columns: int, element_bytes: int, tile: Tile, l1_bytes: int) -> int:
    """Elements to leave between the rows of A, so that two tiles of them fit in the L1 beside B.

    Args:
        columns: of A.
        element_bytes: size of an element.
        tile: in which the product reads A.
        l1_bytes: first-level cache.
    """
    taken = -(-tile.kc * tile.width * element_bytes // WAY_BYTES) + 1  # the slice of B; the sums
    ways = max(1, l1_bytes // WAY_BYTES - taken)
    row = min(tile.kc, columns) * element_bytes
    return padding(2 * tile.mr, row, columns * element_bytes, ways) // element_bytes
