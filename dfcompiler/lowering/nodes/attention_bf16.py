"""Attention of bfloat16 queries, keys and values by matrix tiles; softmax in float."""

from __future__ import annotations

from typing import Any

import dace
from dace import library
from dace.transformation.transformation import ExpandTransformation

from dfcompiler.errors import UnsupportedError
from dfcompiler.lowering.nodes.attention import Attention, mask_of, panels
from dfcompiler.lowering.nodes.expansion import (
    Arrays,
    add_pointer_map,
    connected_arrays,
    data,
    in_place_of,
    nested_graph,
    offset,
)
from dfcompiler.lowering.symbolic import text

# Queries of one task in `kernels/cpu/attention_bf16.h`, of all heads that read the same keys.
PANEL = 64


@library.node
class AttentionBf16(Attention):
    """`Attention` with bfloat16 queries, keys, values and result; attributes are the same."""

    implementations: dict[str, Any] = {}  # noqa: RUF012
    default_implementation = None


@library.register_expansion(AttentionBf16, "native")
class ExpandNative(ExpandTransformation):
    """A parallel map over batch, key heads and panels of queries; the tasklet calls the kernel."""

    environments: list[Any] = []  # noqa: RUF012

    @staticmethod
    def expansion(node: AttentionBf16, state: dace.SDFGState, sdfg: dace.SDFG, **_: Any) -> Any:
        arrays = connected_arrays(node, state, sdfg)
        graph = nested_graph(node, arrays)
        ranges, group = panels(arrays, PANEL)
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
        mask_of(arrays, "float", heads),
        matrix("_o", heads),
        text(o.strides[1]),
    )
    return f"dfc::attention::tile_task({', '.join(arguments)});"
