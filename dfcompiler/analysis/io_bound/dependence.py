"""Which elements of its operands an operator's result depends on, box by box.

Where it is not known which elements are needed (indices of a gather), at least one is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from dfcompiler.analysis.io_bound.boxes import Box, Region, Span, some, span, whole
from dfcompiler.analysis.io_bound.regrouping import regrouped
from dfcompiler.analysis.io_bound.words import elements_of
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators import OPERATORS, OpClass
from dfcompiler.ir.operators.normalization import reduced_axes
from dfcompiler.ir.operators.spec import normalize_axis
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType

Types = tuple[TensorType, ...]
Needs = Iterator[tuple[int, Box]]
"""Positions among the operands, and boxes of them."""


def needed_elements(op: Op, types: Types) -> dict[str, int]:
    """How many elements of each input the whole result depends on, at least."""
    found = needs(op, types, Region([whole(op.type)]))
    return {name: found[name].count() for name in op.inputs}


def needs(
    op: Op, types: Types, wanted: Region, known: Mapping[str, range] | None = None
) -> dict[str, Region]:
    """What is needed of each input for what is wanted of the result.

    Args:
        op: an operator with concrete types and offsets.
        types: of its inputs.
        wanted: elements of its result.
        known: inputs that hold the indices of a range without gaps.
    """
    if op.region:
        return _needs_of_region(op, types, wanted)
    found: dict[str, Region] = defaultdict(Region)
    rule = _RULES.get(op.kind)
    if rule is None and OPERATORS[op.kind].op_class is OpClass.ELEMENTWISE:
        rule = _elementwise
    rows = (known or {}).get(op.inputs[1]) if op.kind == "index_copy" else None
    if rows is not None and op.attr("part") is None:
        rule = partial(_placed, rows)
    for box in wanted.boxes:
        for index, needed in rule(op, types, box) if rule else ():
            found[op.inputs[index]].add(needed)
    return found


def _needs_of_region(op: Op, types: Types, wanted: Region) -> dict[str, Region]:
    scope = dict(zip(op.inputs, types, strict=True))
    inner_types: list[Types] = []
    for inner in op.region:
        inner_types.append(tuple(scope[name] for name in inner.inputs))
        scope[inner.result] = inner.type
    demand: dict[str, Region] = defaultdict(Region)
    demand[op.region[-1].result].merge(wanted)
    for inner, found in zip(reversed(op.region), reversed(inner_types), strict=True):
        for name, more in needs(inner, found, demand[inner.result]).items():
            demand[name].merge(more)
    return {name: demand[name] for name in op.inputs}


def _broadcast(box: Box, shape: Sequence[Dim], tensor: TensorType) -> Box:
    """What an operand that is broadcast to `shape` contributes to a box."""
    if tuple(tensor.shape) == tuple(shape):
        return tuple(box)
    units = max(0, tensor.rank - len(box))
    front = len(box) + units - tensor.rank
    sides = zip(box[front:], shape[front:], tensor.shape[units:], strict=True)
    found = (along if extent == total else span(0, 1) for along, total, extent in sides)
    return (*[span(0, 1)] * units, *found)


def _elementwise(op: Op, types: Types, box: Box) -> Needs:
    for index, tensor in enumerate(types):
        yield index, _broadcast(box, op.type.shape, tensor)


def _rotary(op: Op, types: Types, box: Box) -> Needs:
    """An element turns with its partner; at least itself is counted."""
    yield 0, box
    *front, last = box
    for index, table in enumerate(types[1:], 1):
        half = int(table.shape[-1])
        every = last.every and len(last.indices) == int(op.type.shape[-1])
        turned = (*front, span(0, half) if every else some(half))
        yield index, _broadcast(turned, (*op.type.shape[:-1], half), table)


def _same(op: Op, types: Types, box: Box) -> Needs:
    yield 0, box


def _transpose(op: Op, types: Types, box: Box) -> Needs:
    places = dict(zip(op.attr("perm"), box, strict=True))
    yield 0, tuple(places[axis] for axis in range(len(box)))


def _slice(op: Op, types: Types, box: Box) -> Needs:
    starts, steps = op.attr("starts"), op.attr("steps") or (1,) * len(box)
    yield 0, tuple(map(_picked, box, map(int, starts), map(int, steps)))


def _picked(along: Span, start: int, step: int) -> Span:
    found = along.indices
    first, last = start + found[0] * step, start + found[-1] * step
    stride = found.step * step
    return span(first, last + stride, stride)._replace(every=along.every)


def _concat(op: Op, types: Types, box: Box) -> Needs:
    axis, start = normalize_axis(int(op.attr("axis")), len(box)), 0
    for index, tensor in enumerate(types):
        stop = start + int(tensor.shape[axis])
        part = box[axis].within(start, stop)
        if part is not None:
            yield index, (*box[:axis], part, *box[axis + 1 :])
        start = stop


def _pad(op: Op, types: Types, box: Box) -> Needs:
    sides = zip(box, map(int, op.attr("before")), types[0].shape, strict=True)
    parts = [along.within(before, before + int(extent)) for along, before, extent in sides]
    found = tuple(part for part in parts if part is not None)
    if len(found) == len(box):
        yield 0, found


def _gather(op: Op, types: Types, box: Box) -> Needs:
    data, index = types
    axis = normalize_axis(int(op.attr("axis")), data.rank)
    end = axis + index.rank
    yield 0, (*box[:axis], some(int(data.shape[axis])), *box[end:])
    yield 1, box[axis:end]


def _take_along(op: Op, types: Types, box: Box) -> Needs:
    axis = normalize_axis(int(op.attr("axis")), len(box))
    shape = (*op.type.shape[:axis], types[0].shape[axis], *op.type.shape[axis + 1 :])
    picked = (*box[:axis], some(int(types[0].shape[axis])), *box[axis + 1 :])
    yield 0, _broadcast(picked, shape, types[0])
    yield 1, box


def _index_copy(op: Op, types: Types, box: Box) -> Needs:
    """Indices may agree, but what was written last stays; other parts stay as they are."""
    _, index, source = types
    part, written = op.attr("part"), box
    if part is not None:
        yield from ((0, kept) for kept in _outside(box, 0, range(part, part + 1), op.type))
        inside = box[0].within(part, part + 1)
        if inside is None or not inside.indices:
            return
        written = box[1:]
    yield 1, whole(index)
    axis = normalize_axis(int(op.attr("axis")), len(written))
    if written[axis] == span(0, int(types[0].shape[axis - len(written)])):
        yield 2, (*written[:axis], some(int(source.shape[axis])), *written[axis + 1 :])


def _placed(rows: range, op: Op, types: Types, box: Box) -> Needs:
    """A copy to indices that are known."""
    axis = normalize_axis(int(op.attr("axis")), len(box))
    yield from ((0, kept) for kept in _outside(box, axis, rows, op.type))
    inside = box[axis].within(rows.start, rows.stop)
    if inside is not None and inside.indices:
        yield 1, (inside,)
        yield 2, (*box[:axis], inside, *box[axis + 1 :])


def _outside(box: Box, axis: int, rows: range, tensor: TensorType) -> Iterator[Box]:
    """The parts of a box in front of some rows along an axis, and behind them."""
    for start, stop in ((0, rows.start), (rows.stop, int(tensor.shape[axis]))):
        kept = box[axis].within(start, stop)
        if kept is not None and kept.indices:
            yield (*box[:axis], _picked(kept, start, 1), *box[axis + 1 :])


def _matmul(op: Op, types: Types, box: Box) -> Needs:
    a, b = types
    *batch, row, column = box
    inner = span(0, int(a.shape[-1]))
    shape = op.type.shape
    rows = _broadcast((*batch, row, inner), (*shape[:-1], a.shape[-1]), a)
    columns = _broadcast((*batch, inner, column), (*shape[:-2], b.shape[-2], shape[-1]), b)
    yield 0, rows
    yield 1, columns


def _attention(op: Op, types: Types, box: Box) -> Needs:
    q, k = types[:2]
    batch, heads, rows, width = box
    tokens, inner = int(k.shape[2]), span(0, int(q.shape[3]))
    seen = span(0, tokens)
    if op.attr("causal", False):
        last = rows.indices[-1] if rows.every else rows.indices[0]
        seen = span(0, max(0, last + 1 + tokens - int(q.shape[2])))
    share = int(q.shape[1]) // int(k.shape[1])
    kept = range(heads.indices[0] // share, heads.indices[-1] // share + 1)
    groups = Span(kept, len(kept) == 1 or (heads.every and heads.indices.step <= share))
    yield 0, (batch, heads, rows, inner)
    yield 1, (batch, groups, seen, inner)
    yield 2, (batch, groups, seen, width)
    if len(types) == 4:
        yield 3, _broadcast((batch, heads, rows, seen), (*q.shape[:3], tokens), types[3])


def _along_axis(op: Op, types: Types, box: Box) -> Needs:
    axis = normalize_axis(int(op.attr("axis")), len(box))
    found = list(box)
    found[axis] = span(0, int(types[0].shape[axis]))
    if op.kind == "cumsum":
        found[axis] = span(0, 1 + box[axis].indices[-1 if box[axis].every else 0])
    yield 0, tuple(found)


def _last_axis(op: Op, types: Types, box: Box) -> Needs:
    yield 0, (*box[:-1], span(0, int(types[0].shape[-1])))
    for index in range(1, len(types)):
        yield index, box[-1:]


def _reduction(op: Op, types: Types, box: Box) -> Needs:
    (x,) = types
    argmax = op.kind == "argmax"
    axes = (normalize_axis(int(op.attr("axis")), x.rank),) if argmax else reduced_axes(op, x.rank)
    kept = iter(box)
    found = []
    for axis, extent in enumerate(x.shape):
        if axis not in axes or op.attr("keepdims", False):
            along = next(kept)
        found.append(span(0, int(extent)) if axis in axes else along)
    yield 0, tuple(found)


def _reshape(op: Op, types: Types, box: Box) -> Needs:
    (x,) = types
    if elements_of(x):
        for before in regrouped(tuple(map(int, x.shape)), tuple(map(int, op.type.shape)), box):
            yield 0, before


Rule = Callable[[Op, Types, Box], Needs]
_RULES: dict[str, Rule] = {
    "rotary": _rotary,
    "copy": _same,
    "expand": _elementwise,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "gather": _gather,
    "take_along": _take_along,
    "index_copy": _index_copy,
    "matmul": _matmul,
    "attention": _attention,
    "softmax": _along_axis,
    "cumsum": _along_axis,
    "layer_norm": _last_axis,
    "rms_norm": _last_axis,
    **dict.fromkeys(
        ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "argmax"),
        _reduction,
    ),
}
