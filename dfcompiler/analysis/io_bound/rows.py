"""Operators on rows: chains of element-wise operators, softmax and normalizations."""

from __future__ import annotations

ROWS = "row dependence: no output before its whole row was read, of which at most S words stay"


def chain_words(elements: int, operators: int) -> tuple[int, int]:
    """Words moved by a chain of element-wise operators: one kernel each, and all in one."""
    return 2 * elements * operators, 2 * elements


def row_words(rows: int, columns: int, parameters: int, words: int) -> int:
    """Words that softmax or a normalization of `rows` × `columns` moves at least.

    Every output depends on its whole row. When a row's first output is made, all of the row has
    been read and at most S words of it are still there; the rest is read again.
    """
    return 2 * rows * columns + parameters + rows * max(0, columns - words)


def row_schedule_words(rows: int, columns: int, parameters: int, words: int) -> int:
    """Words of the usual schedule: a row that does not stay in fast memory is read twice."""
    return (2 if columns <= words else 3) * rows * columns + parameters
