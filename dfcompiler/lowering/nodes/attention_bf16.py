"""Attention of bfloat16 queries, keys and values by matrix tiles; softmax in float."""

from __future__ import annotations

from typing import Any

import dace
from dace import dtypes, library, properties
from dace.sdfg import nodes
from dace.transformation.transformation import ExpandTransformation

from dfcompiler.errors import UnsupportedError
from dfcompiler.lowering.nodes.expansion import (
    Arrays,
    add_pointer_map,
    broadcast_strides,
    connected_arrays,
    data,
    in_place_of,
    nested_graph,
    offset,
)
from dfcompiler.lowering.symbolic import ceil_div, text

# Queries of one task in `kernels/cpu/attention_bf16.h`, of all heads that read the same keys.
PANEL = 64


@library.node
class AttentionBf16(nodes.LibraryNode):
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


@library.register_expansion(AttentionBf16, "native")
class ExpandNative(ExpandTransformation):
    """A parallel map over batch, key heads and panels of queries; the tasklet calls the kernel."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: AttentionBf16, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        batch, heads, queries, _ = arrays["_q"].shape
        group = heads // arrays["_k"].shape[1]
        ranges = [
            ("_b", batch),
            ("_h", arrays["_k"].shape[1]),
            ("_panel", ceil_div(group * queries, PANEL)),
        ]
        code = _task(node, arrays, group)
        add_pointer_map(graph, "attention_bf16", ranges, list(node.in_connectors), code)
        return in_place_of(node, graph)


def _task(node: AttentionBf16, arrays: Arrays, group: Any) -> str:
    q, k, v, o = (arrays[connector] for connector in ("_q", "_k", "_v", "_o"))
    strided = [name for name in ("_q", "_k", "_v", "_o") if arrays[name].strides[3] != 1]
    if strided:
        raise UnsupportedError(
            f"attention in bfloat16 reads and writes rows; {strided[0][1:]} has a strided last axis"
        )
    heads = f"(_h * ({text(group)}))"

    def matrix(connector: str, head: str) -> str:
        strides, const = arrays[connector].strides, "" if connector == "_o" else "const "
        start = f"{data(connector)}{offset(['_b', head], strides[:2])}"
        halves = f"reinterpret_cast<{const}dfc::bf16*>({start})"
        return f"dfc::attention::Matrix<{const}dfc::bf16>{{{halves}, {text(strides[2])}, 1}}"

    sizes = ", ".join(map(text, (q.shape[2], k.shape[2], q.shape[3], v.shape[3], group)))
    arguments = (
        "_panel",
        f"dfc::attention::Sizes{{{sizes}}}",
        f"{node.scale!r}f",
        "true" if node.causal else "false",
        matrix("_q", heads),
        text(q.strides[1]),
        matrix("_k", "_h"),
        matrix("_v", "_h"),
        _mask(arrays, heads),
        matrix("_o", heads),
        text(o.strides[1]),
    )
    return f"dfc::attention::tile_task({', '.join(arguments)});"


def _mask(arrays: Arrays, heads: str) -> str:
    if "_mask" not in arrays:
        return "dfc::attention::NoMask{}"
    mask, q, k = arrays["_mask"], arrays["_q"], arrays["_k"]
    strides = broadcast_strides(mask, [*q.shape[:3], k.shape[2]])
    at = offset(["_b", heads], strides[:2])
    rows = f"{text(strides[2])}, {text(strides[3])}, {text(strides[1])}"
    if mask.dtype == dtypes.bool_:
        bytes_ = "reinterpret_cast<const std::int8_t*>(_mask_data)"
        return f"dfc::attention::BoolMask<float>{{{bytes_}{at}, {rows}}}"
    return f"dfc::attention::AdditiveMask<float>{{_mask_data{at}, {rows}}}"
