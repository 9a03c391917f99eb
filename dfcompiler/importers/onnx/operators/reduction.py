"""Reductions, running sums and positions of extremes."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.node import Node, operator
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir import DType
from dfcompiler.ir.dims import Dim
from dfcompiler.ir.operators.spec import normalize_axis

_KINDS = {
    "ReduceMax": "reduce_max",
    "ReduceMean": "reduce_mean",
    "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod",
    "ReduceSum": "reduce_sum",
}
_OF_NOTHING = {"reduce_sum": 0, "reduce_prod": 1}


@operator(*_KINDS)
def _plain(context: Context, node: Node) -> Value:
    return _reduce(context, node, _KINDS[node.op_type], node[0])


@operator("ReduceL1")
def _l1(context: Context, node: Node) -> Value:
    return _reduce(context, node, "reduce_sum", context.op("abs", [node[0]]))


@operator("ReduceL2", "ReduceSumSquare")
def _squares(context: Context, node: Node) -> Value:
    x = node[0]
    total = _reduce(context, node, "reduce_sum", context.op("mul", [x, x]))
    return total if node.op_type == "ReduceSumSquare" else _in_float(context, "sqrt", total)


@operator("ReduceLogSum")
def _log_sum(context: Context, node: Node) -> Value:
    return _in_float(context, "log", _reduce(context, node, "reduce_sum", node[0]))


@operator("ReduceLogSumExp")
def _log_sum_exp(context: Context, node: Node) -> Value:
    x = node[0]
    wide = x if x.dtype.is_float else context.cast(x, DType.F32)
    axes, keep = _axes(node, x), bool(node.attr("keepdims", 1))
    if not axes:
        return x
    if _is_empty(x, axes):
        return _reduce(context, node, "log", x, empty=float("-inf"))
    # Shifted by the greatest element, so that nothing overflows; an infinite one is not shifted.
    peak = context.op("reduce_max", [wide], {"axes": axes, "keepdims": True})
    zero = context.scalar(0, wide.dtype)
    peak = context.op("where", [context.op("isinf", [peak]), zero, peak])
    exponentials = context.op("exp", [context.op("sub", [wide, peak])])
    total = context.op("reduce_sum", [exponentials], {"axes": axes, "keepdims": True})
    result = context.op("add", [context.op("log", [total]), peak])
    shape = tuple(dim for a, dim in enumerate(result.shape) if keep or a not in axes)
    return context.cast(context.reshape(result, shape), x.dtype)


def _in_float(context: Context, kind: str, value: Value) -> Value:
    if value.dtype.is_float:
        return context.op(kind, [value])
    return context.cast(context.op(kind, [context.cast(value, DType.F64)]), value.dtype)


def _axes(node: Node, x: Value) -> tuple[int, ...]:
    """The axes that a node reduces; none when it is told to do nothing."""
    given: Sequence[int] | None = node.attr("axes")
    if node.optional(1) is not None:
        given = node.integers(1)
    if not given:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(x.rank))
    return tuple(sorted({normalize_axis(int(axis), x.rank) for axis in given}))


def _is_empty(x: Value, axes: Sequence[int]) -> bool:
    return any(isinstance(x.shape[a], int) and x.shape[a] == 0 for a in axes)


def _reduce(context: Context, node: Node, kind: str, x: Value, empty: float | None = None) -> Value:
    axes, keep = _axes(node, x), bool(node.attr("keepdims", 1))
    if not axes:
        return x
    if _is_empty(x, axes):
        number = _OF_NOTHING.get(kind, empty)
        if number is None:
            number = _extreme(x.dtype, kind)
        kept = [1 if a in axes else dim for a, dim in enumerate(x.shape) if keep or a not in axes]
        return context.filled(number, x.dtype, tuple(kept))
    if x.dtype is DType.BOOL:
        narrow = context.op(kind, [context.cast(x, DType.U8)], {"axes": axes, "keepdims": keep})
        return context.cast(narrow, DType.BOOL)
    return context.op(kind, [x], {"axes": axes, "keepdims": keep})


def _extreme(dtype: DType, kind: str) -> float | bool:
    """The neutral element of a maximum or a minimum."""
    if kind not in ("reduce_max", "reduce_min"):
        raise ValueError(f"{kind} of nothing is undefined")
    low = kind == "reduce_max"
    if dtype is DType.BOOL:
        return not low
    if dtype.is_float:
        return float("-inf") if low else float("inf")
    signed = dtype.value.startswith("i")
    bits = 8 * dtype.bytes - int(signed)
    if low:
        return -(1 << bits) if signed else 0
    return (1 << bits) - 1


@operator("CumSum")
def _cumsum(context: Context, node: Node) -> Value:
    x = node[0]
    axis = normalize_axis(node.integer(1), x.rank)
    flipped = flip(context, x, axis) if node.attr("reverse", 0) else x
    total = context.op("cumsum", [flipped], {"axis": axis})
    if node.attr("exclusive", 0):
        total = _shifted(context, total, axis)
    return flip(context, total, axis) if node.attr("reverse", 0) else total


def flip(context: Context, x: Value, axis: int) -> Value:
    """The elements along `axis` in opposite order."""
    starts: list[Dim] = [0] * x.rank
    starts[axis] = x.shape[axis] - 1
    steps = [-1 if a == axis else 1 for a in range(x.rank)]
    return context.slice(x, starts, x.shape, steps)


def _shifted(context: Context, x: Value, axis: int) -> Value:
    """One zero put in front along `axis`, the last element dropped."""
    before = tuple(int(a == axis) for a in range(x.rank))
    attrs = {"before": before, "after": (0,) * x.rank, "value": 0}
    padded = context.op("pad", [x], attrs)
    return context.slice(padded, (0,) * x.rank, x.shape)


@operator("ArgMax", "ArgMin")
def _position(context: Context, node: Node) -> Value:
    x = node[0]
    axis = normalize_axis(int(node.attr("axis", 0)), x.rank)
    if node.op_type == "ArgMin":
        x = _reversed_order(context, x)
    attrs = {"axis": axis, "keepdims": bool(node.attr("keepdims", 1))}
    if not node.attr("select_last_index", 0):
        return context.op("argmax", [x], attrs)
    from_end = context.op("argmax", [flip(context, x, axis)], attrs)
    last = context.dims([x.shape[axis] - 1])
    return context.op("sub", [context.reshape(last, ()), from_end])


def _reversed_order(context: Context, x: Value) -> Value:
    """Values in opposite order, without overflow: −x, or −1 − x for integers."""
    if x.dtype.is_float:
        return context.op("neg", [x])
    if x.dtype.value.startswith("u"):
        x = context.cast(x, DType.I64)
    return context.op("sub", [context.scalar(-1, x.dtype), x])


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(context: Context, node: Node) -> Value:
    x = node.ranked(0, 3)
    kind = "reduce_mean" if node.op_type == "GlobalAveragePool" else "reduce_max"
    return context.op(kind, [x], {"axes": tuple(range(2, x.rank)), "keepdims": True})
