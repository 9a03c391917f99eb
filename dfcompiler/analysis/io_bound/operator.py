"""The bound of one operator, or of all operators in a region together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from dfcompiler.analysis.io_bound import attention, gemm, rows
from dfcompiler.analysis.io_bound.attention import ATTENTION, Heads
from dfcompiler.analysis.io_bound.dependence import Types, needed_elements
from dfcompiler.analysis.io_bound.gemm import COMPULSORY, Product
from dfcompiler.analysis.io_bound.words import bits_of, bytes_of_elements, dense_bytes, elements_of
from dfcompiler.analysis.layouts import is_view
from dfcompiler.ir.operators import OPERATORS, OpClass
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType

MOVES = ("reshape", "transpose", "copy")
NORMALIZATIONS = ("softmax", "layer_norm", "rms_norm")


def op_bound(op: Op, types: Types, fast_bytes: int) -> tuple[int | None, str]:
    """Bytes that an operator with concrete types must move on its own, and why.

    A view moves nothing. What depends on the values of indices has no bound. For a region, the
    largest of what its inputs and its result demand, and of what one of its products, attentions
    or normalizations demands whose operands come from different inputs.
    """
    if op.result.startswith("%") and is_view(op, types[0] if types else op.type):
        return 0, "the result is the operand's memory"
    if op.kind in ("constant", "dim") and not op.type.shape:
        return 0, "a number is part of the code"
    if op.kind in ("gather", "take_along", "index_copy"):
        return None, "unknown: depends on the indices"
    found = compulsory = compulsory_bytes(op, types)
    theorem = COMPULSORY
    for part in parts(op, types):
        loaded = sum(part.others.values())
        bound, name = part.bound(fast_bytes, dense_bytes(op.type), compulsory)
        if bound + loaded > found:
            found, theorem = bound + loaded, name
    return found, theorem


def compulsory_bytes(op: Op, types: Types) -> int:
    """Bytes of the operands' elements that the result depends on, and of the result."""
    return sum(_loaded(op, types).values()) + dense_bytes(op.type)


def _loaded(op: Op, types: Types) -> dict[str, int]:
    demand = needed_elements(op, types)
    named = dict(zip(op.inputs, types, strict=True))
    return {name: bytes_of_elements(t, demand.get(name, 0)) for name, t in named.items()}


@dataclass(frozen=True)
class Part:
    """Something in an operator that needs more than its operands once.

    Attributes:
        work: products that share nothing or one operand, heads of attention, or rows.
        bits: bits of the narrowest stored value among its operands.
        result_bits: bits of its result's values.
        stores: whether the operator's result has an element for each of its results.
        others: bytes of the region's inputs that it does not use.
    """

    work: Product | Heads | Rows
    bits: int
    result_bits: int
    stores: bool
    others: dict[str, int]

    def bound(self, fast_bytes: int, result_bytes: int, compulsory: int) -> tuple[int, str]:
        """Bytes of this part's operands and of the result; and the theorem."""
        words = max(1, fast_bytes * 8 // self.bits)
        match self.work:
            case Product() if self.stores:
                return gemm.streamed_bytes(self.work, self.bits, self.result_bits, fast_bytes)
            case Product():
                read = gemm.segment_words(self.work, words) - self.work.result_words
                return max(0, read) * self.bits // 8 + result_bytes, gemm.SEGMENTS
            case Heads():
                moved = attention.streamed_words(self.work, words) * self.bits // 8
                return moved + result_bytes, ATTENTION
            case Rows(count, columns) if self.stores:
                again = count * max(0, columns - words) * self.bits // 8
                return compulsory - sum(self.others.values()) + again, rows.ROWS
            case Rows():
                return 0, rows.ROWS  # statistics can be applied after a product


@dataclass(frozen=True)
class Rows:
    """Rows that are reduced to statistics and read again."""

    count: int
    columns: int


@dataclass(frozen=True)
class _Image:
    """The input that a value has the elements of, one for one, and its narrowest stored width."""

    source: str
    bits: int


def parts(op: Op, types: Types) -> Iterator[Part]:
    """What in an operator needs more than its operands once; see `Part`."""
    scope = dict(zip(op.inputs, types, strict=True))
    images = {name: _Image(name, bits_of(t)) for name, t in scope.items()}
    loaded = _loaded(op, types)
    inner_ops = op.region or (op,)
    stored = _stored_values(inner_ops, elements_of(op.type))
    for inner in inner_ops:
        inner_types = tuple(scope[name] for name in inner.inputs)
        used = [images[name] for name in inner.inputs[:2] if name in images]
        work = _work(inner, inner_types)
        operands = 1 if isinstance(work, Rows) else 2
        sources = {image.source for image in used[:operands]}
        if work is not None and len(used) >= operands and len(sources) == operands:
            yield Part(
                work,
                min(image.bits for image in used[:operands]),
                bits_of(op.type),
                inner.result in stored,
                {name: size for name, size in loaded.items() if name not in sources},
            )
        image = _image(inner, inner_types, images)
        if image is not None:
            images[inner.result] = image
        scope[inner.result] = inner.type


def _work(op: Op, types: Types) -> Product | Heads | Rows | None:
    match op.kind:
        case "matmul":
            return product_of(*types)
        case "attention":
            return heads_of(op, types)
        case kind if kind in NORMALIZATIONS and types[0].shape:
            columns = int(types[0].shape[int(op.attr("axis", -1))])
            return Rows(elements_of(types[0]) // max(1, columns), columns)
    return None


def product_of(a: TensorType, b: TensorType) -> Product:
    """Extents of a product; batch axes of one operand alone become its rows or columns."""
    m, k, n = int(a.shape[-2]), int(a.shape[-1]), int(b.shape[-1])
    rank = max(a.rank, b.rank)
    left = (1,) * (rank - a.rank) + tuple(map(int, a.shape[:-2]))
    right = (1,) * (rank - b.rank) + tuple(map(int, b.shape[:-2]))
    m *= prod(x for x, y in zip(left, right, strict=True) if y == 1)
    n *= prod(y for x, y in zip(left, right, strict=True) if x == 1)
    batch = prod(x for x, y in zip(left, right, strict=True) if x != 1 and y != 1)
    return Product(m, n, k, batch)


def heads_of(op: Op, types: Types) -> Heads:
    """Pairs of queries and keys over all heads; keys after a causal query do not count."""
    batch, heads, tokens, width = map(int, types[0].shape)
    keys = int(types[1].shape[-2])
    pairs = tokens * keys
    if op.attr("causal", False):
        # The last query sees every key, the one before it one less.
        pairs = sum(max(0, keys - back) for back in range(tokens))
    return Heads(batch * heads * pairs, width)


def _image(op: Op, types: Types, images: dict[str, _Image]) -> _Image | None:
    """The image of a result of which each element needs its own element of an operand."""
    elementwise = OPERATORS[op.kind].op_class is OpClass.ELEMENTWISE
    if not elementwise and op.kind not in (*MOVES, *NORMALIZATIONS):
        return None
    for name, tensor in zip(op.inputs, types, strict=True):
        if name in images and elements_of(tensor) == elements_of(op.type):
            return images[name]
    return None


def _stored_values(ops: tuple[Op, ...], elements: int) -> set[str]:
    """Values of which each element is needed for its own element of the last result."""
    found = {ops[-1].result}
    producers: dict[str, Op] = {op.result: op for op in ops}
    waiting = [ops[-1]]
    while waiting:
        op = waiting.pop()
        if OPERATORS[op.kind].op_class is not OpClass.ELEMENTWISE and op.kind not in MOVES:
            continue
        for name in op.inputs:
            inner = producers.get(name)
            if inner is None or name in found or elements_of(inner.type) != elements:
                continue
            found.add(name)
            waiting.append(inner)
    return found
