"""What the expansions share: the graph that takes a node's place, and the maps in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import dace
from dace import dtypes
from dace.sdfg import nodes

from dfcompiler.lowering.maps import ONCE, share
from dfcompiler.lowering.symbolic import text
from dfcompiler.lowering.views import from_first_element

Arrays: TypeAlias = Mapping[str, dace.data.Array]
Ranges: TypeAlias = Sequence[tuple[str, Any]]


def connected_arrays(
    node: Any, state: dace.SDFGState, sdfg: dace.SDFG
) -> dict[str, dace.data.Array]:
    """The array behind each connector of a library node, from the first element on."""
    names = {edge.dst_conn: edge.data.data for edge in state.in_edges(node)}
    names |= {edge.src_conn: edge.data.data for edge in state.out_edges(node)}
    return {connector: from_first_element(sdfg.arrays[name]) for connector, name in names.items()}


def nested_graph(node: Any, arrays: Arrays) -> dace.SDFG:
    """An empty graph whose arrays are the node's connectors."""
    graph = dace.SDFG(f"{node.name}_{node.implementation}")
    for connector, array in arrays.items():
        copy = array.clone()
        copy.transient = False
        graph.add_datadesc(connector, copy)
        for symbol in copy.free_symbols:
            if str(symbol) not in graph.symbols:
                graph.add_symbol(str(symbol), dtypes.int64)
    return graph


def in_place_of(node: Any, graph: dace.SDFG) -> nodes.NestedSDFG:
    """`graph` as the node that an expansion returns; connectors and symbols keep their order."""
    names = sorted(str(symbol) for symbol in graph.free_symbols)
    inputs = dict.fromkeys(node.in_connectors)
    outputs = dict.fromkeys(node.out_connectors)
    return nodes.NestedSDFG(node.name, graph, inputs, outputs, {name: name for name in names})


def add_symbols(graph: dace.SDFG, values: Sequence[Any]) -> None:
    """Declares the symbols of expressions that no array of `graph` mentions."""
    for value in values:
        for symbol in getattr(value, "free_symbols", ()):
            if str(symbol) not in graph.symbols:
                graph.add_symbol(str(symbol), dtypes.int64)


def add_pointer_map(
    graph: dace.SDFG, label: str, ranges: Ranges, inputs: Sequence[str], code: str
) -> None:
    """A shared map whose tasklet gets pointers to whole arrays, ``_a_data`` for array ``_a``.

    Args:
        graph: the graph, still without states.
        label: name of the state and the tasklet.
        ranges: parameters and extents; the threads share all of them as one loop.
        inputs: connectors that are arrays of `graph`.
        code: C++ over the connectors and the parameters.
    """
    state = graph.add_state(label)
    add_symbols(graph, [extent for _, extent in ranges])
    tasklet, entry, _ = state.add_mapped_tasklet(
        label,
        {name: f"0:{dace.symbolic.symstr(extent)}" for name, extent in ranges},
        {data(name): dace.Memlet.from_array(name, graph.arrays[name]) for name in inputs},
        code,
        {data("_o"): dace.Memlet.from_array("_o", graph.arrays["_o"])},
        schedule=dtypes.ScheduleType.Sequential,
        language=dtypes.Language.CPP,
        external_edges=True,
        propagate=False,
    )
    for name in inputs:
        tasklet.in_connectors[data(name)] = dtypes.pointer(graph.arrays[name].dtype)
    tasklet.out_connectors[data("_o")] = dtypes.pointer(graph.arrays["_o"].dtype)
    share(entry.map, len(ranges))


def data(connector: str) -> str:
    """The pointer by which a tasklet knows what is behind a node's connector."""
    return f"{connector}_data"


def add_element_map(
    graph: dace.SDFG,
    label: str,
    ranges: Ranges,
    reads: Mapping[str, tuple[str, Sequence[Any]]],
    write: tuple[str, Sequence[Any]],
    code: str,
    wcr: str | None = None,
) -> None:
    """A state after the last one with a map over single elements, shared along the first axis.

    Args:
        graph: the graph.
        label: name of the state and the tasklet.
        ranges: parameters and extents.
        reads: connector → array and index.
        write: array and index of the connector ``out``.
        code: C++ over the connectors.
        wcr: how a written value combines with what is there; none overwrites it.
    """
    sinks = graph.sink_nodes()
    state = graph.add_state(label, is_start_block=not sinks)
    if sinks:
        graph.add_edge(sinks[0], state, dace.InterstateEdge())
    add_symbols(graph, [extent for _, extent in ranges])
    array, index = write
    _, entry, _ = state.add_mapped_tasklet(
        label,
        {name: f"0:{dace.symbolic.symstr(extent)}" for name, extent in ranges or [ONCE]},
        {name: dace.Memlet(_element(*read)) for name, read in reads.items()},
        code,
        {"out": dace.Memlet(_element(array, index), wcr=wcr)},
        schedule=dtypes.ScheduleType.Sequential,
        language=dtypes.Language.CPP,
        external_edges=True,
    )
    share(entry.map, 1)


def _element(array: str, index: Sequence[Any]) -> str:
    return f"{array}[{', '.join(map(str, index)) or '0'}]"


def offset(indices: Sequence[str], strides: Sequence[Any]) -> str:
    """The C++ sum of indices times strides, to be added to a pointer; empty for none."""
    terms = [
        f" + {index} * ({text(stride)})"
        for index, stride in zip(indices, strides, strict=True)
        if stride != 0
    ]
    return "".join(terms)


def broadcast_strides(array: dace.data.Array, shape: Sequence[Any]) -> list[Any]:
    """The strides with which `array` is read under a shape that it broadcasts to."""
    missing = len(shape) - len(array.shape)
    own = zip(array.shape, array.strides, strict=True)
    return [0] * missing + [0 if extent == 1 else stride for extent, stride in own]
