"""ATen operators that move, cut, repeat or join tensors."""

from __future__ import annotations

from collections.abc import Sequence

from dfcompiler.importers.torch_export.context import Context, NotSupported, Tensor, promoted
from dfcompiler.importers.torch_export.registry import Arguments, handler
from dfcompiler.ir.dims import Dim, expand


@handler(
    *("view.default", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as"),
    *("unsqueeze", "squeeze", "_reshape_alias", "_reshape_copy", "view_copy", "squeeze_copy"),
    "unsqueeze_copy",
)
def _reshape(ctx: Context, a: Arguments) -> Tensor:
    return ctx.reshape(a["self"], ctx.result.shape)


@handler("permute", "permute_copy")
def _permute(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return ctx.transpose(x, [x.axis(axis) for axis in a["dims"]])


@handler("transpose", "swapaxes", "swapdims", "transpose_copy")
def _transpose(ctx: Context, a: Arguments) -> Tensor:
    first, second = (a[n] for n in a if n != "self")
    return ctx.swap(a["self"], first, second)


@handler("t", "t_copy", "mT", "adjoint", "matrix_H")
def _swap_last(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return x if x.rank < 2 else ctx.swap(x, -2, -1)


@handler("numpy_T")
def _reverse_axes(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    return ctx.transpose(x, list(reversed(range(x.rank))))


@handler("expand", "expand_as", "broadcast_to", "expand_copy")
def _expand(ctx: Context, a: Arguments) -> Tensor:
    return ctx.expand(a["self"], ctx.result.shape)


@handler("slice", "slice_copy", "narrow")
def _slice(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    axis = x.axis(a["dim"])
    start = slice_start(x.shape[axis], a["start"])
    return ctx.slice(x, axis, start, ctx.result.shape[axis], a.get("step", 1))


def slice_start(extent: Dim, start: Dim | None) -> Dim:
    """The first index that a slice takes, counted from the front."""
    if start is None:
        return 0
    if isinstance(start, int) and start < 0:
        first = extent + start
        return max(first, 0) if isinstance(first, int) else first
    if isinstance(start, int) and isinstance(extent, int):
        return min(start, extent)
    return start


@handler("select", "select_copy")
def _select(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    axis, index = x.axis(a["dim"]), a["index"]
    if isinstance(index, int) and index < 0:
        index = expand(x.shape[axis] + index)
    return ctx.reshape(ctx.slice(x, axis, index, 1), ctx.result.shape)


@handler("split", "split_with_sizes", "chunk", "tensor_split", "split_copy")
def _split(ctx: Context, a: Arguments) -> tuple[Tensor, ...]:
    x: Tensor = a["self"]
    axis, start, parts = x.axis(a["dim"]), 0, []
    for fake in ctx.expected:
        size = ctx.symbols.type(fake).shape[axis]
        parts.append(ctx.slice(x, axis, start, size))
        start = expand(start + size)
    return tuple(parts)


@handler("unbind", "unbind_copy")
def _unbind(ctx: Context, a: Arguments) -> tuple[Tensor, ...]:
    x: Tensor = a["self"]
    axis = x.axis(a["dim"])
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    return tuple(ctx.reshape(ctx.slice(x, axis, i, 1), rest) for i in range(len(ctx.expected)))


@handler("cat", "concat", "concatenate")
def _cat(ctx: Context, a: Arguments) -> Tensor:
    # torch lets an empty vector join anything
    tensors = [t for t in a["tensors"] if t.shape != (0,)]
    return _concat(ctx, tensors, tensors[0].axis(a["dim"]))


@handler("stack")
def _stack(ctx: Context, a: Arguments) -> Tensor:
    axis = a["dim"] % ctx.result.rank
    shapes = [(*t.shape[:axis], 1, *t.shape[axis:]) for t in a["tensors"]]
    parts = [ctx.reshape(t, shape) for t, shape in zip(a["tensors"], shapes, strict=True)]
    return _concat(ctx, parts, axis)


def _concat(ctx: Context, tensors: Sequence[Tensor], axis: int) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    dtype = promoted(tensors)
    return ctx.emit("concat", [ctx.cast(t, dtype) for t in tensors], {"axis": axis})


@handler("repeat", "tile")
def _repeat(ctx: Context, a: Arguments) -> Tensor:
    counts = list(a["repeats"] if "repeats" in a else a["dims"])
    x, rank = a["self"], ctx.result.rank
    counts = [1] * (rank - len(counts)) + counts
    shape = (1,) * (rank - x.rank) + x.shape
    # Each axis becomes (count, extent): expanding the first repeats the second as a whole.
    pairs = [pair for count, dim in zip(counts, shape, strict=True) for pair in (count, dim)]
    singles = [pair for dim in shape for pair in (1, dim)]
    repeated = ctx.expand(ctx.reshape(x, tuple(singles)), tuple(pairs))
    return ctx.reshape(repeated, ctx.result.shape)


@handler("repeat_interleave.self_int")
def _repeat_interleave(ctx: Context, a: Arguments) -> Tensor:
    x, count = a["self"], a["repeats"]
    if a["dim"] is None:
        raise NotSupported("repeats elements of a flattened tensor")
    axis = x.axis(a["dim"])
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    wide = ctx.expand(ctx.reshape(x, (*before, 1, *after)), (*before, count, *after))
    return ctx.reshape(wide, ctx.result.shape)


@handler("constant_pad_nd", "pad")
def _pad(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    if a.get("mode", "constant") != "constant":
        raise NotSupported(f"pads in mode {a['mode']}")
    widths = list(a["pad"])
    value = a["value"] if a["value"] is not None else 0
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i in range(len(widths) // 2):
        before[x.rank - 1 - i], after[x.rank - 1 - i] = widths[2 * i], widths[2 * i + 1]
    if any(isinstance(width, int) and width < 0 for width in widths):
        raise NotSupported("pads by a negative width")
    number = float(value) if x.dtype.is_float else int(value)
    attrs = {"before": tuple(before), "after": tuple(after), "value": number}
    return ctx.emit("pad", [x], attrs)


@handler("flip")
def _flip(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    axes = {x.axis(axis) for axis in a["dims"]}
    starts = tuple(expand(d - 1) if i in axes else 0 for i, d in enumerate(x.shape))
    steps = tuple(-1 if i in axes else 1 for i in range(x.rank))
    return ctx.emit("slice", [x], {"starts": starts, "steps": steps}, type=x.type)


@handler("roll")
def _roll(ctx: Context, a: Arguments) -> Tensor:
    x: Tensor = a["self"]
    if not a["dims"]:
        raise NotSupported("rolls a flattened tensor")
    for shift, dim in zip(a["shifts"], a["dims"], strict=True):
        axis = x.axis(dim)
        extent = x.shape[axis]
        if not isinstance(extent, int) or not isinstance(shift, int):
            raise NotSupported("rolls along an axis of symbolic extent")
        cut = -shift % extent
        if cut:
            tail = ctx.slice(x, axis, cut, extent - cut)
            x = _concat(ctx, [tail, ctx.slice(x, axis, 0, cut)], axis)
    return x
