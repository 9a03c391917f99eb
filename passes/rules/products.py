"""Contractions and reductions: broadcasts and reshapes of batch axes, attributes in one form."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.ir import OPERATORS, Attrs, Op
from dfcompiler.ir.dims import equal, product, same_shape
from dfcompiler.ir.operators.spec import broadcast_shapes, normalize_axis
from passes.rules.sweep import Rule, Sweep, as_kind


def absorb_batch_broadcast(sweep: Sweep, op: Op) -> Op | None:
    """A matrix product broadcasts batch axes by itself."""
    inputs = []
    for name in op.inputs:
        producer = sweep.producer(name, "expand")
        source = producer.inputs[0] if producer is not None else name
        same = sweep.type_of(source).rank >= 2 and same_shape(
            sweep.shape_of(source)[-2:], sweep.shape_of(name)[-2:]
        )
        inputs.append(source if same else name)
    if tuple(inputs) == op.inputs:
        return None
    batch = broadcast_shapes([sweep.shape_of(name)[:-2] for name in inputs])
    return replace(op, inputs=tuple(inputs)) if same_shape(batch, op.type.shape[:-2]) else None


def sink_row_reshape(sweep: Sweep, op: Op) -> Op | None:
    """``matmul(reshape(x), w)`` with flattened rows becomes ``reshape(matmul(x, w))``.

    Axes of x that the reshape merges into the summed one are still merged before.
    """
    a, b = op.inputs
    flat = sweep.producer(a, "reshape")
    if flat is None or sweep.type_of(b).rank != 2 or op.type.rank != 2:
        return None
    shape, (rows, inner) = sweep.shape_of(flat.inputs[0]), sweep.shape_of(a)
    for split in range(2, len(shape)):
        if equal(product(shape[:split]), rows) and equal(product(shape[split:]), inner):
            unmerged = sweep.emit("reshape", flat.inputs, shape=(*shape[:split], inner))
            merged = sweep.emit("matmul", (unmerged, b), source=op.source)
            return as_kind(op, "reshape", merged)
    return None


def sink_batch_reshape(sweep: Sweep, op: Op) -> Op | None:
    """Both operands with their batch axes flattened alike: multiply first, flatten afterwards."""
    producers = [sweep.producer(name, "reshape") for name in op.inputs]
    flat = [producer for producer in producers if producer is not None]
    if len(flat) < 2:
        return None
    sources = [producer.inputs[0] for producer in flat]
    shapes = [sweep.shape_of(name) for name in sources]
    if any(len(shape) <= op.type.rank for shape in shapes):
        return None
    if not same_shape(shapes[0][:-2], shapes[1][:-2]):
        return None
    for shape, producer in zip(shapes, flat, strict=True):
        if not same_shape(shape[-2:], producer.type.shape[-2:]):
            return None
    return as_kind(op, "reshape", sweep.emit("matmul", sources, source=op.source))


def absorb_mask_broadcast(sweep: Sweep, op: Op) -> Op | None:
    """Attention broadcasts its mask by itself."""
    producer = sweep.producer(op.inputs[3], "expand") if len(op.inputs) == 4 else None
    if producer is None:
        return None
    return replace(op, inputs=(*op.inputs[:3], producer.inputs[0]))


def count_axes_from_front(sweep: Sweep, op: Op) -> Op | None:
    """Axes are sorted and not negative."""
    rank = len(sweep.shape_of(op.inputs[0]))
    attrs = dict(op.attrs)
    if "axis" in attrs:
        attrs["axis"] = normalize_axis(int(op.attr("axis")), rank)
    if "axes" in attrs:
        attrs["axes"] = tuple(sorted(normalize_axis(axis, rank) for axis in op.attr("axes")))
    return None if attrs == dict(op.attrs) else replace(op, attrs=Attrs(attrs))


def drop_defaults(sweep: Sweep, op: Op) -> Op | None:
    """Optional attributes stand only where they say something."""
    defaults = OPERATORS[op.kind].optional or {}
    kept = {k: v for k, v in op.attrs.items() if k not in defaults or v != defaults[k]}
    return replace(op, attrs=Attrs(kept)) if len(kept) < len(op.attrs) else None


_WITH_AXES = (
    *("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod"),
    *("argmax", "softmax", "cumsum", "gather", "take_along", "index_copy"),
)

ATTRIBUTES: dict[str, tuple[Rule, ...]] = {
    **{kind: (drop_defaults,) for kind, spec in OPERATORS.items() if spec.optional},
    **dict.fromkeys(_WITH_AXES, (drop_defaults, count_axes_from_front)),
}

RULES: dict[str, tuple[Rule, ...]] = {
    "matmul": (absorb_batch_broadcast, sink_row_reshape, sink_batch_reshape),
    "attention": (absorb_mask_broadcast,),
}
