"""Lower bounds on the bytes that any schedule of a computation moves.

A bound belongs to the computation and the size of the fast memory, and holds for schedules that do
not look at the values of masks and conditions to skip work. Bounds of operators do not add up to
one of a program, because a fused schedule keeps results in fast memory; the program's bound is the
compulsory one: what must be loaded of inputs and weights, and what must be stored.
"""

from __future__ import annotations

from math import prod

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.layouts import is_view
from dfcompiler.ir.operators import OPERATORS, OpClass
from dfcompiler.ir.program import Block, Branch, Container, Loop, Op, Program, Role, State
from dfcompiler.ir.types import Affine, Bitmap, TensorType

COMPULSORY = "compulsory: each operand loaded and each result stored once"
GEMM = "Kwasniewski et al., arXiv 1908.09606: 2mnk/√S + mn"

Types = tuple[TensorType, ...]


def program_bound(program: Program, concrete: Concrete) -> int:
    """Bytes that any schedule of the whole program moves.

    Every element of an input or weight on which the outputs or the persistent state depend is
    loaded, and every output stored. Where it is not known which elements are needed (gathers,
    branches), none are counted.
    """
    demand = _Demand(program, concrete)
    demand.blocks(program.body)
    loaded: dict[object, int] = {}
    for container in program.containers:
        if container.role in (Role.INPUT, Role.WEIGHT):
            elements = demand.containers.get(f"@{container.name}", 0)
            found = _bytes_of_elements(concrete.type(container.type), elements)
            source = _source(program, container)
            loaded[source] = max(loaded.get(source, 0), found)
    stored = sum(_dense_bytes(concrete.type(output.type)) for output in program.outputs)
    return sum(loaded.values()) + stored


def _source(program: Program, container: Container) -> object:
    """What tells a container's values from others: weights in two layouts hold the same ones."""
    data = program.data.get(container.name)
    if data is None or container.role is not Role.WEIGHT or not data.size:
        return container.name
    return data.__array_interface__["data"][0]


def op_bound(op: Op, types: Types, fast_bytes: int) -> tuple[int | None, str]:
    """Bytes that an operator with concrete types must move on its own, and why.

    A view moves nothing. What depends on the values of indices has no bound.
    """
    if op.result.startswith("%") and is_view(op, types[0] if types else op.type):
        return 0, "the result is the operand's memory"
    if op.kind in ("constant", "dim") and not op.type.shape:
        return 0, "a number is part of the code"
    if op.kind in ("gather", "take_along", "index_copy"):
        return None, "unknown: depends on the indices"
    demand = needed_elements(op, types, elements_of(op.type))
    loaded = sum(
        _bytes_of_elements(tensor, demand.get(name, 0))
        for name, tensor in dict(zip(op.inputs, types, strict=True)).items()
    )
    compulsory = loaded + _dense_bytes(op.type)
    product = _single_product(op, types)
    if product is None:
        return compulsory, COMPULSORY
    bound = gemm_bound(*product, fast_bytes)
    return (bound, GEMM) if bound > compulsory else (compulsory, COMPULSORY)


def gemm_bound(
    m: int, n: int, k: int, batch: int, word_bits: int, result_bits: int, fast_bytes: int
) -> int:
    """Bytes that a sequential m × n × k product moves when no operand fits in fast memory.

    Args:
        m: rows of the result.
        n: columns of the result.
        k: summed extent.
        batch: independent products of this size.
        word_bits: bits of the narrowest operand's values; a fast memory holds the most of those.
        result_bits: bits of the result's values.
        fast_bytes: the fast memory.

    Source:
        Kwasniewski et al., COSMA, arXiv 1908.09606: Q ≥ 2mnk/√S + mn words. With words of
        different widths, the narrowest width gives the largest S and the fewest bytes per word.
    """
    words = fast_bytes * 8 // word_bits
    if min(m * k, k * n, m * n) <= words:
        return 0
    streamed = batch * 2 * m * n * k / (words**0.5)
    return int(streamed * word_bits / 8) + batch * m * n * min(word_bits, result_bits) // 8


def _single_product(op: Op, types: Types) -> tuple[int, int, int, int, int, int] | None:
    """Extents and widths of the product that an operator is, on its own or with an epilogue."""
    scope = dict(zip(op.inputs, types, strict=True))
    narrow: dict[str, int] = {}
    for inner in op.region or (op,):
        if inner.kind == "dequantize":
            narrow[inner.result] = _bits(scope[inner.inputs[0]])
        if inner.kind != "matmul":
            scope[inner.result] = inner.type
            continue
        a, b = (scope[name] for name in inner.inputs)
        bits = min(narrow.get(n, _bits(scope[n])) for n in inner.inputs)
        m, k, n = int(a.shape[-2]), int(a.shape[-1]), int(b.shape[-1])
        batch = prod(map(int, inner.type.shape[:-2]))
        if prod(map(int, b.shape[:-2])) == 1:
            m, batch = m * batch, 1
        return m, n, k, batch, max(1, bits), _bits(op.type)
    return None


def _bits(tensor: TensorType) -> int:
    match tensor.encoding:
        case Affine(bits=bits):
            return bits
        case Bitmap():
            return 1
    return 8 * tensor.dtype.bytes


def elements_of(tensor: TensorType) -> int:
    """Number of elements of a concrete type."""
    return prod(map(int, tensor.shape))


def _dense_bytes(tensor: TensorType) -> int:
    return _bytes_of_elements(tensor, elements_of(tensor))


def _bytes_of_elements(tensor: TensorType, elements: int) -> int:
    """Bytes of some elements as encoded; the padding of a tiled layout does not count."""
    total = elements_of(tensor)
    if not total or not elements:
        return 0
    match tensor.encoding:
        case Affine() | Bitmap():
            whole = int(tensor.with_shape(tensor.shape).stored_bytes)
            return whole * elements // total
    return elements * tensor.dtype.bytes


def needed_elements(op: Op, types: Types, wanted: int) -> dict[str, int]:
    """How many elements of each input are needed, at least, for `wanted` elements of the result."""
    needs: dict[str, int] = {}
    if not wanted:
        return needs
    if op.region:
        return _needed_by_region(op, types, wanted)
    whole = wanted >= elements_of(op.type)
    for index, (name, tensor) in enumerate(zip(op.inputs, types, strict=True)):
        count = _needed(op, index, tensor, wanted, whole)
        needs[name] = max(needs.get(name, 0), count)
    return needs


def _needed(op: Op, index: int, tensor: TensorType, wanted: int, whole: bool) -> int:
    total = elements_of(tensor)
    match op.kind, index:
        case ("gather" | "take_along", 0) | ("index_copy", 0 | 2):
            return 0
        case ("reshape" | "transpose" | "copy" | "slice", _):
            return min(wanted, total)
    if OPERATORS[op.kind].op_class is OpClass.ELEMENTWISE and elements_of(op.type) == total:
        return min(wanted, total)
    return total if whole else 0


def _needed_by_region(op: Op, types: Types, wanted: int) -> dict[str, int]:
    scope = dict(zip(op.inputs, types, strict=True))
    inner_types: list[Types] = []
    for inner in op.region:
        inner_types.append(tuple(scope[name] for name in inner.inputs))
        scope[inner.result] = inner.type
    demand = {op.region[-1].result: wanted}
    for inner, found in zip(reversed(op.region), reversed(inner_types), strict=True):
        for name, count in needed_elements(inner, found, demand.get(inner.result, 0)).items():
            demand[name] = max(demand.get(name, 0), count)
    return {name: demand.get(name, 0) for name in op.inputs}


class _Demand:
    """Elements that are needed of each container, from the end of the program backward."""

    def __init__(self, program: Program, concrete: Concrete) -> None:
        self.concrete = concrete
        self.containers: dict[str, int] = {}
        for container in program.containers:
            if container.role in (Role.OUTPUT, Role.PERSIST):
                self.containers[f"@{container.name}"] = elements_of(concrete.type(container.type))

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        for block in reversed(blocks):
            match block:
                case State():
                    self.state(block)
                case Branch(then=then, orelse=orelse):
                    # Neither side is known to run: what they read is not counted, and what
                    # they write may come from them.
                    self.forget(_written(then) | _written(orelse))
                case Loop():
                    self.loop(block)

    def loop(self, loop: Loop) -> None:
        """The last iteration is known to run; what it reads may come from the one before."""
        values = self.concrete.iterations(loop)
        if not values:
            return
        with self.concrete.bound(loop.variable, values[0 if loop.until else -1]):
            self.blocks(loop.body)
        if len(values) > 1:
            self.forget(_written(loop.body))

    def forget(self, names: set[str]) -> None:
        for name in names:
            self.containers[name] = 0

    def state(self, state: State) -> None:
        values: dict[str, int] = {}
        for op, types in reversed(tuple(self.concrete.typed_ops(state))):
            wanted = self.take(op.result, values)
            for name, count in needed_elements(op, types, wanted).items():
                kept = self.containers if name.startswith("@") else values
                kept[name] = max(kept.get(name, 0), count)

    def take(self, result: str, values: dict[str, int]) -> int:
        """The demand for what an operator defines; before it, a container is not needed for it."""
        return (self.containers if result.startswith("@") else values).pop(result, 0)


def _written(blocks: tuple[Block, ...]) -> set[str]:
    found: set[str] = set()
    for block in blocks:
        match block:
            case State(ops=ops):
                found.update(op.result for op in ops if op.result.startswith("@"))
            case Loop(body=body):
                found |= _written(body)
            case Branch(then=then, orelse=orelse):
                found |= _written(then) | _written(orelse)
    return found
