"""A small program for a GPU, as the lowering makes them, built by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dace
import numpy as np
from dace import dtypes

from dfcompiler.codegen import build
from dfcompiler.ir import Program, parse, verify
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.lowering.lowered import Argument, Lowered
from dfcompiler.target import parse_target

SQUARES = """
program squares(N <= 4096) {
  input @x: f32[N, 4]
  weight @w: f32[4]
  persist @calls: f32[4]
  output @y: f32[N, 4]
  state main {
    %0: f32[N, 4] = add @x, @w
    %1: f32[N, 4] = mul %0, %0
    @y: f32[N, 4] = add %1, @calls
    %2: f32[] = constant {value = 1.0}
    @calls: f32[4] = add @calls, %2
  }
}
"""
W = np.array([1, -2, 0.5, 3], np.float32)
LIMIT = 1e6
"""An element of x above it counts as a bad index."""
SITE = "gather (embedding): index {value} is out of range for an axis of 4"


def squares() -> Program:
    return verify(replace(parse(SQUARES), data={"w": W}))


def lowered_squares() -> Lowered:
    """`squares`, each operator a map of the GPU in a state of its own."""
    program = squares()
    types = {container.name: container.type for container in program.containers}
    arguments = (
        Argument("in_x", "input", "x", types["x"]),
        Argument("out_y", "output", "y", types["y"]),
        Argument("state_calls", "persist", "calls", types["calls"]),
        Argument("status", "status", "", TensorType(DType.I64, (2,))),
        Argument("v0", "value", "", types["x"], "v0"),
        Argument("w_w", "weight", "w", types["w"]),
    )
    return Lowered(program, _graph(), arguments, (), (SITE,), 1)


def _graph() -> dace.SDFG:
    sdfg = dace.SDFG("squares")
    sdfg.add_symbol("N", dtypes.int64)
    rows = dace.symbol("N", dtypes.int64)
    shapes = {"in_x": [rows, 4], "out_y": [rows, 4], "v0": [rows, 4], "w_w": [4]}
    shapes["state_calls"] = [4]
    for name, shape in shapes.items():
        storage = dtypes.StorageType.GPU_Global
        sdfg.add_array(name, shape, dtypes.float32, storage=storage, may_alias=True)
    sdfg.add_array("status", [2], dtypes.int64, storage=dtypes.StorageType.GPU_Global)
    whole = {"i": "0:N", "j": "0:4"}
    report = f"c = a + b; if (a > {LIMIT}) {{ s[0] = 1; s[1] = long(a); }}"
    add = _add_map(sdfg, whole, report, {"a": "in_x[i, j]", "b": "w_w[j]"}, "v0[i, j]", "status")
    square = {"a": "v0[i, j]", "b": "state_calls[j]"}
    multiply = _add_map(sdfg, whole, "c = a * a + b;", square, "out_y[i, j]")
    count = _add_map(sdfg, {"j": "0:4"}, "c = a + 1;", {"a": "state_calls[j]"}, "state_calls[j]")
    for first, second in ((add, multiply), (multiply, count)):
        sdfg.add_edge(first, second, dace.InterstateEdge())
    return sdfg


def _add_map(
    sdfg: dace.SDFG,
    extents: dict[str, str],
    code: str,
    reads: dict[str, str],
    written: str,
    status: str = "",
) -> dace.SDFGState:
    state = sdfg.add_state(is_start_block=not sdfg.nodes())
    state.nosync = True
    outputs = {"c": dace.Memlet(written)}
    if status:
        outputs["s"] = dace.Memlet(f"{status}[0:2]", dynamic=True)
    _, entry, _ = state.add_mapped_tasklet(
        "compute",
        extents,
        {name: dace.Memlet(place) for name, place in reads.items()},
        code,
        outputs,
        schedule=dtypes.ScheduleType.GPU_Device,
        language=dtypes.Language.CPP,
        external_edges=True,
    )
    entry.map.gpu_block_size = [64, 1, 1]
    return state


def build_squares(out: Path) -> Path:
    return build(None, lowered_squares(), parse_target("cuda:sm_90"), out)


def expected_squares(x: np.ndarray, call: int) -> np.ndarray:
    """`y` in float64 of the call with this number, from 0."""
    return (x.astype(np.float64) + W) ** 2 + call
