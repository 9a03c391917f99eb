"""Tiles of a matrix product, by integer search at every level of a memory hierarchy.

A level keeps the face of one operand still while a loop runs past it; the faces of the others
stream through. What streams decides how many words cross into the level for each multiply-add:

    level       still      runs   crosses into it, in words a multiply-add
    registers   C mr × nr  k      1/mr (B) + 1/nr (A) + 2/kc (C, loaded and stored)
    L1          B kc × w   m      1/mc (B) + 1/w  (A) + 2/kc (C)
    L2          A mc × K   n      1/mc (B) + 1/N  (A) + 1/K  (C)
                C mc × w   k      1/mc (B) + 1/w  (A) + 1/K  (C), where A's block does not fit

A slice is w columns wide: one panel of nr or several.

Source:
    One level: Kwasniewski et al., COSMA, arXiv 1908.09606: keep a × b of C, stream a column of A
    and a row of B, and a·b/(a + b) multiply-adds follow from each word. Several levels: each level
    is such a product of its own whose slow memory is the next level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf

from dfcompiler.target import CpuTarget

LINE = 16
"""Floats in a cache line."""
WHOLE_ROWS = 24
"""Rows that are not worth splitting: those for which a kernel streams B."""


def slice_columns(nr: int) -> int:
    """Columns of a slice of B: panels side by side, 64 columns together."""
    return max(nr, 64)


@dataclass(frozen=True)
class Product:
    """A family of matrix products C[M, N] += A[M, K]·B[K, N] that one tile serves.

    Attributes:
        rows: the values of M that count, one for each sample of the symbols.
        columns: N.
        depth: K.
        element_bytes: size of an element in the caches.
    """

    rows: tuple[int, ...]
    columns: int
    depth: int
    element_bytes: int = 4


@dataclass(frozen=True)
class Tile:
    """Rows and columns in registers, depth of a slice of B in L1, rows of a block in L2.

    `kc` is a whole number of cache lines and bounds the steps of k, `mc` the rows of a block: a
    product splits both evenly.
    """

    mr: int
    nr: int
    kc: int
    mc: int

    @property
    def width(self) -> int:
        """Columns of a slice of B."""
        return slice_columns(self.nr)

    @property
    def attribute(self) -> tuple[int, int, int, int]:
        """The tile as an operator's attribute."""
        return self.mr, self.nr, self.kc, self.mc


@dataclass(frozen=True)
class Caches:
    """The levels above the registers, nearest first.

    Attributes:
        l1_bytes: memory in which a slice of B stays: L1, or shared memory.
        l2_bytes: memory in which a block of A and its sums stay.
        workers: cores (or multiprocessors) that share the tasks of a product.
        usable: share of L1 that operands may fill; stacks and the epilogue need the rest.
        kept: share of L2 for what a task uses again; the rest of A, C and the operands of the
            epilogue pass through the other part.
        l1_balance: multiply-adds that a worker loses while a word crosses into L1.
        l2_balance: the same for L2, whose words are asked for in time.
        touch_balance: the same for a word of A that a worker reads for the first time: it comes
            from another core's cache or from memory, and nothing asked for it.
    """

    l1_bytes: int
    l2_bytes: int
    workers: int
    usable: float = 7 / 8
    kept: float = 1 / 2
    l1_balance: float = 1.0
    l2_balance: float = 0.5
    touch_balance: float = 20.0

    @staticmethod
    def of(target: CpuTarget) -> Caches:
        """Those of one core of a processor."""
        return Caches(target.l1_bytes, target.l2_bytes, target.cores)


def outer_product_block(
    words: int, rows: Iterable[int], columns: Iterable[int]
) -> tuple[int, int] | None:
    """The a × b of C that saves most loads: the greatest ab/(a + b) with ab + b + 1 ≤ words.

    b words of B and one of A are resident besides C. For registers a word is a vector: an element
    of A fills one when it is broadcast, and so costs as much as a vector of B.

    Returns:
        (a, b), the one with more of b among equals; None where none fits.
    """
    best, found = -inf, None
    tall = sorted(set(rows), reverse=True)
    for b in sorted(set(columns), reverse=True):
        a = next((a for a in tall if a * b + b + 1 <= words), 0)
        if a and a * b / (a + b) > best:
            best, found = a * b / (a + b), (a, b)
    return found


def choose_tile(product: Product, caches: Caches, mr: int, nr: int) -> Tile | None:
    """The tile around a register tile that is given; None where L1 holds no slice of B.

    Args:
        product: the products to serve.
        caches: the memories.
        mr: rows of the register tile.
        nr: its columns, which are those of a packed panel.
    """
    kc = slice_depth(product, caches, mr, nr)
    if not kc:
        return None
    return Tile(mr, nr, kc, block_rows(product, caches, mr, nr, kc))


def tile_on(target: CpuTarget, product: Product) -> Tile | None:
    """The tile of `product` on a processor, around the register tile of its kernel."""
    return choose_tile(product, Caches.of(target), target.gemm_mr, target.gemm_nr)


def candidates(product: Product, caches: Caches, mr: int, nr: int, count: int) -> list[Tile]:
    """Tiles near the chosen one, the chosen one first: other depths, other numbers of blocks."""
    first = choose_tile(product, caches, mr, nr)
    if first is None:
        return []
    most = max(product.rows)
    steps = ceil(product.depth / first.kc)
    blocks = ceil(most / first.mc)
    found = [first]
    for more_steps in (0, 1, -1, 2, -2):
        for more_blocks in (0, 1, -1, 2):
            if steps + more_steps < 1 or blocks + more_blocks < 1:
                continue
            kc = _even_depth(product.depth, steps + more_steps)
            mc = _even_rows(most, blocks + more_blocks, mr)
            found.append(Tile(mr, nr, kc, mc))
    return list(dict.fromkeys(found))[:count]


def slice_depth(product: Product, caches: Caches, mr: int, nr: int) -> int:
    """Steps of k whose slice of B stays in L1 beside two tiles of A and of C, evenly split.

    The second ones are on their way while the first are worked on. More steps spare C its way to
    L2 and back (2/kc). 0 where L1 holds none.
    """
    width, words = slice_columns(nr), int(caches.l1_bytes * caches.usable) // product.element_bytes
    most = (words - 2 * mr * width) // (width + 2 * mr) // LINE * LINE
    return _even_depth(product.depth, ceil(product.depth / most)) if most > 0 else 0


def block_rows(product: Product, caches: Caches, mr: int, nr: int, kc: int) -> int:
    """Rows of a block: the even split with the shortest time over all samples of M.

    Fewer rows read B more often; more rows leave workers idle in the last round of slices ×
    blocks, do not fit in L2, or make several workers read the same block of A.
    """
    limit = max(product.rows)
    most_blocks = max(1, limit // WHOLE_ROWS)
    choices = {_even_rows(limit, blocks, mr) for blocks in range(1, most_blocks + 1)}

    def time(mc: int) -> tuple[float, int]:
        _, into_l1, into_l2 = words_moved(product, caches, Tile(mr, nr, kc, mc))
        waiting = 1 + caches.l1_balance * into_l1 + caches.l2_balance * into_l2
        total = 0.0
        for rows in product.rows:
            readers = max(1, caches.workers / ceil(rows / mc))
            touched = caches.touch_balance * readers / product.columns
            total += (waiting + touched) * _span(product, rows, caches.workers, mc, nr)
        return total, -mc

    return min(choices, key=time)


def words_moved(product: Product, caches: Caches, tile: Tile) -> tuple[float, float, float]:
    """Words that cross into registers, L1 and L2 for each multiply-add."""
    sums = 0.0 if tile.kc >= product.depth else 2 / tile.kc
    return (
        1 / tile.mr + 1 / tile.nr + sums,
        1 / tile.mc + 1 / tile.width + sums,
        _l2_crossing(product, caches, tile),
    )


def _l2_crossing(product: Product, caches: Caches, tile: Tile) -> float:
    """Words into L2 for each multiply-add; infinite where not even the sums of a block fit."""
    words = caches.l2_bytes // product.element_bytes
    mc, kc, width = tile.mc, tile.kc, tile.width
    sums, slices = mc * width, 2 * kc * width
    whole = 1 / mc + 1 / product.depth
    if mc * product.depth + sums + slices <= caches.kept * words:
        return whole + 1 / product.columns
    if 2 * mc * kc + sums + slices <= caches.kept * words:
        return whole + 1 / width
    return inf


def block_count(rows: int, most: int, slices: int, workers: int) -> int:
    """Blocks into which a product splits its rows: of at most `most`, and work for every worker.

    Args:
        rows: rows of the product.
        most: most rows of a block.
        slices: tasks that there are for each block.
        workers: how many tasks should have work at the same time.
    """
    splits = max(1, min(block_splits(slices, workers), ceil(rows / WHOLE_ROWS)))
    return splits * ceil(rows / (most * splits))


def block_splits(tasks: int, workers: int) -> int:
    """The fewest splits of each of `tasks` with which `workers` are busy 95 % of the time."""
    counts = range(1, workers + 1)
    return next(n for n in counts if n * tasks >= 0.95 * workers * ceil(n * tasks / workers))


def _span(product: Product, rows: int, workers: int, mc: int, nr: int) -> float:
    """Rows times slices that the busiest worker computes, over an equal share.

    Tiles of a block differ by a row at most, and one with a row less takes less time.
    """
    slices = ceil(product.columns / slice_columns(nr))
    blocks = block_count(rows, mc, slices, workers)
    return ceil(slices * blocks / workers) * ceil(rows / blocks) / (slices * rows / workers)


def _even_rows(rows: int, blocks: int, mr: int) -> int:
    """Rows of each of `blocks` equal blocks, in whole tiles."""
    return ceil(ceil(rows / mr) / blocks) * mr


def _even_depth(depth: int, steps: int) -> int:
    """Depth of each of `steps` equal slices, a whole number of cache lines of A."""
    return max(1, ceil(ceil(depth / steps) / LINE)) * LINE


def register_tile(
    registers: int, lanes: int, rows: Sequence[int], columns: Sequence[int]
) -> tuple[int, int] | None:
    """Rows and columns in elements of the best register tile among those that a kernel has.

    Args:
        registers: vector registers of the machine.
        lanes: elements of a vector.
        rows: numbers of rows that the kernel can be made for.
        columns: numbers of columns, multiples of `lanes`.
    """
    found = outer_product_block(registers, rows, [c // lanes for c in columns if c % lanes == 0])
    return None if found is None else (found[0], found[1] * lanes)
