"""Small programs with everything an artifact can have, built into artifacts for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from dfcompiler.codegen import build
from dfcompiler.ir import Program, parse, verify
from dfcompiler.lowering import Lowered, lower
from dfcompiler.target import parse_target

LEDGER = """
program ledger(S <= 64, N <= 8) {
  input @ids: i64[S]
  input @scale: f32[]
  weight @table: f32[10, 4]
  weight @twin: f32[10, 4]
  weight @panel: f32[3, 5; 1/4 0 1%4]
  persist @total: f32[4]
  persist @calls: i64[]
  output @rows: f32[S, 4]
  output @sums: f32[N, 4]
  output @count: i64[]
  output @flags: bool[S]
  state main {
    %0: f32[S, 4] = gather @table, @ids {axis = 0} from "embedding"
    %1: f32[S, 4] = gather @twin, @ids {axis = 0}
    %2: f32[S, 4] = add %0, %1
    @rows: f32[S, 4] = mul %2, @scale
    %3: i64[] = constant {value = 4}
    @flags: bool[S] = greater @ids, %3
    %4: i64[] = constant {value = 1}
    @calls: i64[] = add @calls, %4
    @count: i64[] = copy @calls
    %5: f32[] = constant {value = 0.0}
    @sums: f32[N, 4] = expand %5
  }
  loop steps for t in 0..N {
    state step {
      %0: f32[4] = reduce_sum @rows {axes = [0]}
      @total: f32[4] = add @total, %0
      %1: i64[] = dim {value = t}
      %2: i64[1] = reshape %1
      %3: f32[1, 4] = reshape @total
      @sums: f32[N, 4] = index_copy @sums, %2, %3 {axis = 0}
    }
  }
}
"""
"""Persistent state with and without an initial value, a loop, a size that only the caller knows,
equal weights, a packed weight, an index that may be out of range, three dtypes, rank 0."""

START = np.array([1, 2, 3, 4], np.float32)


@cache
def ledger() -> Program:
    """The program of `LEDGER` with its data."""
    rng = np.random.default_rng(5)
    table = rng.standard_normal((10, 4)).astype(np.float32)
    panel = rng.standard_normal((3, 5)).astype(np.float32)
    data = {"table": table, "twin": table.copy(), "panel": panel, "total": START}
    return verify(replace(parse(LEDGER), data=data))


@cache
def lowered_ledger() -> Lowered:
    return lower(ledger(), parse_target("cpu"))


def build_ledger(out: Path, *, force: bool = False) -> Path:
    return build(None, lowered_ledger(), parse_target("cpu"), out, force=force)


def build_text(text: str, out: Path, data: Mapping[str, np.ndarray] | None = None) -> Path:
    """The artifact of a program in text form."""
    program = verify(replace(parse(text), data=dict(data or {})))
    target = parse_target("cpu")
    return build(None, lower(program, target), target, out)


def expected_ledger(
    ids: np.ndarray, scale: float, steps: int, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`rows` and `sums` in float64, for a persistent total before the call."""
    table = ledger().data["table"].astype(np.float64)
    rows = 2 * table[ids] * scale
    sums = total + np.arange(1, steps + 1)[:, None] * rows.sum(axis=0)
    return rows, sums
