"""Exact attention: a lower bound with its constant, and three schedules counted exactly.

N queries and T keys of width d; scores are sums of d products and are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

ATTENTION = (
    "segments of complete and partial scores, after Saha and Ye, arXiv 2402.07443: "
    "Ω(min(N²d²/S, N²d/√S))"
)


@dataclass(frozen=True)
class Heads:
    """Attention of some heads: `pairs` of a query and a key that it sees, over all heads."""

    pairs: int
    width: int


def streamed_words(heads: Heads, words: int) -> int:
    """Words that any exact schedule reads or writes for the scores' products alone.

    Cut the schedule after every L words moved. A segment finds at most X = S + L words of queries
    and keys. A score of which it does all d products needs d words of its query and d of its key:
    at most X²/4d² such scores, X²/4d products. Any other score it touches leaves a partial sum
    that was there or read before, or stays or is written after: at most 2S + L of them, and by
    Loomis and Whitney at most X/2·√(2S + L) products. So pairs·d products need more than g
    segments while g times the sum of both is less than that.

    For d much below √S this is N²d²/S, for d above it N²d/√S times a constant: the two regimes.
    """
    products, found = heads.pairs * heads.width, 0
    for eighths in range(1, 41):
        moved = words * eighths // 8
        if not moved:
            continue
        reach = words + moved
        complete = reach * reach / (4 * heads.width)
        partial = reach / 2 * sqrt(2 * words + moved)
        segments = ceil(products / (complete + partial) * (1 - 1e-12)) - 1
        found = max(found, segments * moved)
    return found


def unfused_words(tokens: int, width: int) -> int:
    """Scores and probabilities written and read: one head, N queries and keys."""
    return 4 * tokens * width + 4 * tokens * tokens


def keys_outermost_words(tokens: int, width: int, words: int) -> int:
    """Blocks of keys and values outermost; queries, results and statistics pass each block.

    Source:
        Dao et al., arXiv 2205.14135, algorithm 1, with blocks of ⌈S/4d⌉ keys.
    """
    passes = ceil(tokens / ceil(words / (4 * width)))
    return 2 * tokens * width + passes * (3 * tokens * width + 4 * tokens)


def queries_outermost_words(tokens: int, width: int, rows: int) -> int:
    """Blocks of `rows` queries outermost; keys and values pass each, statistics leave once."""
    return 2 * tokens * width + tokens + 2 * tokens * width * ceil(tokens / rows)


def query_rows(width: int, keys: int, words: int) -> int:
    """The most queries whose block, results, scores with `keys` keys and statistics fit."""
    return (words - 2 * width * keys) // (2 * width + keys + 2)
