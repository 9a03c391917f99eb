"""Attention: softmax(q·kᵀ·scale + mask)·v."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import dace
from dace import dtypes, library, properties
from dace.sdfg import nodes
from dace.symbolic import int_floor
from dace.transformation.transformation import ExpandTransformation

from dfcompiler.errors import UnsupportedError
from dfcompiler.lowering.nodes.expansion import (
    Arrays,
    add_element_map,
    add_pointer_map,
    broadcast_strides,
    connected_arrays,
    data,
    in_place_of,
    nested_graph,
    offset,
)
from dfcompiler.lowering.symbolic import ceil_div, symbol, text

Reads: TypeAlias = dict[str, tuple[str, Sequence[Any]]]

# Queries of one task in `kernels/cpu/attention.h`, of all heads that read the same keys.
PANEL = 64


@library.node
class Attention(nodes.LibraryNode):
    """Connectors ``_q``, ``_k``, ``_v`` and maybe ``_mask`` → ``_o``, as the IR's `attention`.

    Attributes:
        scale: factor of the scores.
        causal: whether the last query sees all keys and each one before it one less.
    """

    implementations: dict[str, Any] = {}  # noqa: RUF012
    default_implementation = None

    scale = properties.Property(dtype=float, default=1.0)
    causal = properties.Property(dtype=bool, default=False)

    def __init__(self, name: str, scale: float, *, causal: bool, masked: bool) -> None:
        inputs = dict.fromkeys(["_q", "_k", "_v", *(["_mask"] if masked else [])])
        super().__init__(name, inputs=inputs, outputs={"_o": None})
        self.scale, self.causal = scale, causal


@library.register_expansion(Attention, "native")
class ExpandNative(ExpandTransformation):
    """A parallel map over batch, key heads and panels of queries; the tasklet calls the kernel."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: Attention, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        ranges, group = panels(arrays, PANEL)
        code = _task(node, arrays, group)
        add_pointer_map(graph, "attention", ranges, list(node.in_connectors), code)
        return in_place_of(node, graph)


def panels(arrays: Arrays, panel: int) -> tuple[list[tuple[str, Any]], Any]:
    """The tasks of an attention, `panel` queries each, and how many heads read the same keys."""
    batch, heads, queries, _ = arrays["_q"].shape
    key_heads = arrays["_k"].shape[1]
    group = heads // key_heads
    return [("_b", batch), ("_h", key_heads), ("_panel", ceil_div(group * queries, panel))], group


def _task(node: Attention, arrays: Arrays, group: Any) -> str:
    q, k, v, o = (arrays[connector] for connector in ("_q", "_k", "_v", "_o"))
    if o.shape[3] != 1 and o.strides[3] != 1:
        raise UnsupportedError("attention writes rows; its result has a strided last axis")
    dtype = o.dtype.ctype
    heads = f"(_h * ({text(group)}))"

    def matrix(connector: str, ctype: str, head: str) -> str:
        strides = arrays[connector].strides
        start = f"{data(connector)}{offset(['_b', head], strides[:2])}"
        rows, columns = text(strides[2]), text(strides[3])
        return f"dfc::attention::Matrix<{ctype}>{{{start}, {rows}, {columns}}}"

    sizes = ", ".join(map(text, (q.shape[2], k.shape[2], q.shape[3], v.shape[3], group)))
    arguments = (
        "_panel",
        f"dfc::attention::Sizes{{{sizes}}}",
        _number(node.scale, dtype),
        "true" if node.causal else "false",
        matrix("_q", f"const {dtype}", heads),
        text(q.strides[1]),
        matrix("_k", f"const {dtype}", "_h"),
        text(k.strides[1]),
        matrix("_v", f"const {dtype}", "_h"),
        text(v.strides[1]),
        mask_of(arrays, dtype, heads),
        matrix("_o", dtype, heads),
        text(o.strides[1]),
    )
    return f"dfc::attention::task<{dtype}>({', '.join(arguments)});"


def _number(value: float, dtype: str) -> str:
    return f"{value!r}{'f' if dtype == 'float' else ''}"


def mask_of(arrays: Arrays, dtype: str, heads: str) -> str:
    """The C++ object of the mask of one batch index, for scores of type `dtype`."""
    if "_mask" not in arrays:
        return "dfc::attention::NoMask{}"
    mask, q, k = arrays["_mask"], arrays["_q"], arrays["_k"]
    strides = broadcast_strides(mask, [*q.shape[:3], k.shape[2]])
    at = offset(["_b", heads], strides[:2])
    rows = f"{text(strides[2])}, {text(strides[3])}, {text(strides[1])}"
    if mask.dtype == dtypes.bool_:
        bytes_ = "reinterpret_cast<const std::int8_t*>(_mask_data)"
        return f"dfc::attention::BoolMask<{dtype}>{{{bytes_}{at}, {rows}}}"
    return f"dfc::attention::AdditiveMask<{dtype}>{{_mask_data{at}, {rows}}}"


@library.register_expansion(Attention, "pure")
class ExpandPure(ExpandTransformation):
    """Maps over single elements, with the scores in memory: slow, and the oracle of the others."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: Attention, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        q, k, v, o = (arrays[connector] for connector in ("_q", "_k", "_v", "_o"))
        b, h, s, t, d = (symbol(name) for name in ("_b", "_h", "_s", "_t", "_d"))
        head = int_floor(h, q.shape[1] // k.shape[1])
        rows = list(zip(("_b", "_h", "_s"), q.shape[:3], strict=True))
        pairs = [*rows, ("_t", k.shape[2])]
        for name, extents in (("scores", pairs), ("peaks", rows), ("totals", rows)):
            graph.add_transient(
                name,
                [extent for _, extent in extents],
                o.dtype,
                storage=dtypes.StorageType.CPU_Heap,
            )
        scores, peaks, totals = (
            ("scores", [b, h, s, t]),
            ("peaks", [b, h, s]),
            ("totals", [b, h, s]),
        )
        lowest = f"-std::numeric_limits<{o.dtype.ctype}>::infinity()"
        plus, greatest = "lambda x, y: x + y", "lambda x, y: max(x, y)"

        add_element_map(graph, "zero_scores", pairs, {}, scores, "out = 0;")
        reads: Reads = {"x": ("_q", [b, h, s, d]), "y": ("_k", [b, head, t, d])}
        dot = [*pairs, ("_d", q.shape[3])]
        add_element_map(graph, "scores", dot, reads, scores, "out = x * y;", plus)
        reads, code = _masked(node, arrays, scores, lowest)
        add_element_map(graph, "mask", pairs, reads, scores, code)
        add_element_map(graph, "lowest", rows, {}, peaks, f"out = {lowest};")
        add_element_map(graph, "peak", pairs, {"x": scores}, peaks, "out = x;", greatest)
        reads = {"x": scores, "peak": peaks}
        code = f"out = dfc::exp(x - (peak == {lowest} ? 0 : peak));"
        add_element_map(graph, "exp", pairs, reads, scores, code)
        add_element_map(graph, "zero_total", rows, {}, totals, "out = 0;")
        add_element_map(graph, "total", pairs, {"x": scores}, totals, "out = x;", plus)
        width = ("_d", v.shape[3])
        result = ("_o", [b, h, s, d])
        add_element_map(graph, "zero", [*rows, width], {}, result, "out = 0;")
        reads = {"x": scores, "total": totals, "y": ("_v", [b, head, t, d])}
        code = "out = total == 0 ? 0 : x / total * y;"
        add_element_map(graph, "product", [*pairs, width], reads, result, code, plus)
        return in_place_of(node, graph)


def _masked(
    node: Attention, arrays: Arrays, scores: tuple[str, Sequence[Any]], lowest: str
) -> tuple[Reads, str]:
    """What the tasklet reads that scales and masks one score, and its code."""
    dtype = arrays["_o"].dtype.ctype
    value = f"x * {_number(node.scale, dtype)}"
    reads: Reads = {"x": scores}
    if "_mask" in arrays:
        mask = arrays["_mask"]
        index = scores[1][4 - len(mask.shape) :]
        reads["mask"] = (
            "_mask",
            [0 if e == 1 else i for e, i in zip(mask.shape, index, strict=True)],
        )
        value = f"mask ? {value} : {lowest}" if mask.dtype == dtypes.bool_ else f"{value} + mask"
    if node.causal:
        horizon = arrays["_k"].shape[2] - arrays["_q"].shape[2]
        value = f"_t <= _s + ({text(horizon)}) ? {value} : {lowest}"
    return reads, f"out = {value};"
