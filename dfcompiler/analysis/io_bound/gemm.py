"""Matrix products: what any schedule moves, and the blocks that nearly reach it.

m × n × k multiply-adds of an m × k and a k × n matrix. Words count; `words` is the fast memory S.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isqrt, sqrt

COMPULSORY = "compulsory: each operand loaded and each result stored once"
COSMA = "Kwasniewski et al., arXiv 1908.09606: 2mnk/√S + mn"
SEGMENTS = "Loomis-Whitney over segments of reads, after Smith et al., arXiv 1702.02017: 2mnk/√S"


@dataclass(frozen=True)
class Product:
    """`batch` products of m × k and k × n matrices that share nothing."""

    m: int
    n: int
    k: int
    batch: int = 1

    @property
    def volume(self) -> int:
        """Multiply-adds."""
        return self.batch * self.m * self.n * self.k

    @property
    def result_words(self) -> int:
        return self.batch * self.m * self.n

    @property
    def compulsory_words(self) -> int:
        """Each operand loaded once, the result stored once."""
        return self.batch * (self.m * self.k + self.k * self.n + self.m * self.n)

    @property
    def smallest_operand(self) -> int:
        return min(self.m * self.k, self.k * self.n, self.m * self.n)


def least_footprint(volume: float, product: Product) -> float:
    """The fewest words of A, B and C with which `volume` of the multiply-adds can be done.

    Loomis and Whitney: a cube has the smallest faces, and a box where an extent ends. Growing one
    of several products to the whole before the next is begun costs least.
    """
    short, middle, long = sorted((product.m, product.n, product.k))
    whole = short * middle * long
    done, rest = divmod(volume, whole)
    if rest <= short**3:
        part: float = 3 * rest ** (2 / 3)
    elif rest <= short * middle**2:
        part = rest / short + 2 * sqrt(rest * short)
    else:
        part = short * middle + (short + middle) * rest / (short * middle)
    return done * (short * middle + middle * long + short * long) + part


def segment_words(product: Product, words: int) -> int:
    """Words read by any schedule of a product whose every partial sum is read, too.

    Cut the schedule after every X - S reads: a segment has at most X words of A, B and C at its
    disposal. If less than 1/g of the volume can be done with them, there are more than g whole
    segments. The best g gives 2mnk/√S and more where an extent is below √S.

    Source:
        Smith et al., arXiv 1702.02017, section 3, for extents that are as large as needed.
    """
    found, segments = 0, 1
    while segments <= product.volume:
        # One below the X at which 1/g of the volume fits; rounding must not raise the bound.
        most = ceil(least_footprint(product.volume / segments, product) * (1 - 1e-12)) - 1
        if most <= words:
            break
        found = max(found, segments * (most - words))
        segments = max(segments + 1, segments * 17 // 16)
    return found


def streamed_words(product: Product, words: int) -> tuple[int, str]:
    """Words that a product moves because its operands do not stay in fast memory, and why.

    The first partial sum of an element of C need not be read: that saves at most mn reads, and mn
    words are stored, so that 2mnk/√S remains. The stronger 2mnk/√S + mn needs operands that do not
    fit and sums of at least 2√S terms: with shorter ones a block of k × S/k words of B can stay
    while rows of A pass, and each element of C is finished at once, for mnk²/S + mn words.
    """
    found = segment_words(product, words)
    if product.smallest_operand > words and product.k**2 >= 4 * words:
        published = int(2 * product.volume / sqrt(words)) + product.result_words
        if published >= found:
            return published, COSMA
    return found, SEGMENTS


def product_words(product: Product, words: int) -> tuple[int, str]:
    """The larger of the streamed and the compulsory bound, and its theorem."""
    streamed, theorem = streamed_words(product, words)
    compulsory = product.compulsory_words
    return (streamed, theorem) if streamed > compulsory else (compulsory, COMPULSORY)


def best_block(words: int) -> tuple[int, int]:
    """The block of C to keep, a ≤ b, while columns of A and rows of B pass it.

    Maximizes ab/(a + b), the multiply-adds per word read, subject to ab + a + 1 ≤ S: the block, a
    column of A, and one word of B.
    """
    found, best = (1, 1), 0.0
    for a in range(1, isqrt(words) + 1):
        b = (words - 1 - a) // a
        if b >= a and a * b / (a + b) > best:
            found, best = (a, b), a * b / (a + b)
    return found


def block_words(product: Product, a: int, b: int) -> int:
    """Words moved by keeping a × b blocks of C while columns of A and rows of B pass them."""
    rows, columns = ceil(product.m / a), ceil(product.n / b)
    loaded = product.k * (product.m * columns + product.n * rows)
    return product.batch * (loaded + product.m * product.n)


def parallel_domain(product: Product, ranks: int, words: int) -> tuple[float, float]:
    """The domain a × a × b of one processor with S words: a along m and n, b along k.

    Source:
        Kwasniewski et al., arXiv 1908.09606, section 6.
    """
    share = product.volume / ranks
    return min(sqrt(words), share ** (1 / 3)), max(share / words, share ** (1 / 3))


def parallel_words(product: Product, ranks: int, words: int) -> float:
    """Words that some of `ranks` processors with S words each moves: the faces of its domain.

    2mnk/(p√S) + S where memory is short, 3(mnk/p)^⅔ where a cube fits.

    Source:
        Kwasniewski et al., arXiv 1908.09606, theorem 2; it needs p·S ≥ mn + mk + nk. The paper
        writes the two cases as a minimum, which would always be the second one.

    Raises:
        ValueError: if the processors' memories together do not hold the matrices.
    """
    if ranks * words < product.compulsory_words:
        raise ValueError(
            f"{ranks} memories of {words} words do not hold {product.compulsory_words} words"
        )
    a, b = parallel_domain(product, ranks, words)
    return 2 * a * b + a * a


def gemm_bound(
    m: int, n: int, k: int, batch: int, word_bits: int, result_bits: int, fast_bytes: int
) -> int:
    """Bytes that a product moves because its operands do not stay in fast memory.

    Args:
        m: rows of the result.
        n: columns of the result.
        k: summed extent.
        batch: independent products of this size.
        word_bits: bits of the narrowest operand's values; a fast memory holds the most of those.
        result_bits: bits of the result's values.
        fast_bytes: the fast memory.
    """
    return streamed_bytes(Product(m, n, k, batch), word_bits, result_bits, fast_bytes)[0]


def streamed_bytes(
    product: Product, word_bits: int, result_bits: int, fast_bytes: int
) -> tuple[int, str]:
    """`streamed_words` in bytes: words of the narrowest width, of which most fit and each is least.

    Only the stored result may count with fewer bits than that.
    """
    moved, theorem = streamed_words(product, fast_bytes * 8 // word_bits)
    stored = min(moved, product.result_words)
    return ((moved - stored) * word_bits + stored * min(word_bits, result_bits)) // 8, theorem
