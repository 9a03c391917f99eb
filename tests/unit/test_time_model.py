"""Predicted times: what they must grow with, and what costs nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.program_time import program_times
from dfcompiler.analysis.time_model import kernel_s, predicted_s
from dfcompiler.ir import Op, parse
from dfcompiler.ir.types import DType, TensorType
from dfcompiler.target import parse_target

MACHINE = Machine.nominal(replace(parse_target("cpu:x86-64-v4"), l2_bytes=2 << 20), threads=2)
PROGRAM = parse(
    """program p(S) {
  input @x: f32[S, 768]
  weight @w: f32[768, 768; 1/64 0 1%64]
  output @y: f32[S, 768]
  state main {
    %0: f32[S, 768] = fused @x, @w {kernel = "linear"} do
      %.0: f32[S, 768] = matmul @x, @w
      %.1: f32[S, 768] = gelu %.0
    end
    %1: f32[4, S, 192] = reshape %0 {alias = true}
    %2: f32[4, S, 192] = exp %1
    %3: f32[S, 768] = reshape %2
    @y: f32[S, 768] = softmax %3 {axis = 1}
  }
}"""
)


def seconds(size: int, machine: Machine = MACHINE) -> list[float]:
    return [time.seconds for time in program_times(PROGRAM, {"S": size}, machine)]


def test_views_take_no_time() -> None:
    product, view, exponential, copied, softmax = seconds(64)
    assert view == copied == 0
    assert min(product, exponential, softmax) > 0


def test_times_grow_with_the_sizes() -> None:
    small, large = seconds(64), seconds(4096)
    assert all(a < b for a, b in zip(small, large, strict=True) if a)


def test_a_product_reaches_no_more_than_its_ceiling() -> None:
    flops = 2 * 4096 * 768 * 768
    ceiling = MACHINE.threads * MACHINE.tile_flops
    assert ceiling / 2 < flops / seconds(4096)[0] <= ceiling


def test_one_row_costs_the_stream_of_the_weight() -> None:
    stream = 4 * 768 * 768 / MACHINE.l3_rate
    assert 1 <= seconds(1)[0] / stream < 2


def test_calibrated_weights_replace_the_defaults() -> None:
    machine = replace(MACHINE, weights={"rows": {"meet": 3.0}})
    assert seconds(64, machine)[4] == pytest.approx(3 * MACHINE.meet_s)
    assert seconds(64, machine)[0] == seconds(64)[0]


def test_one_operator_with_symbolic_types() -> None:
    op = next(PROGRAM.ops())
    types = tuple(PROGRAM.container(name).type for name in op.inputs)
    assert predicted_s(op, types, {"S": 64}, MACHINE) == seconds(64)[0]


def test_loops_count_every_iteration() -> None:
    program = parse(
        """program p(S) {
  input @x: f32[S]
  output @y: f32[S]
  loop same for i in 0..5 {
    state step {
      @y: f32[S] = exp @x
    }
  }
  loop growing for i in 1..4 {
    state step {
      %0: f32[i] = slice @x {starts = [0]}
      @y: f32[S] = expand %0
    }
  }
}"""
    )
    times = program_times(program, {"S": 100}, MACHINE)
    assert [time.runs for time in times] == [5, 3, 3]


def test_a_causal_mask_halves_attention() -> None:
    tensor = TensorType(DType.F32, (1, 12, 512, 64))
    op = Op("%0", tensor, "attention", ("@q", "@k", "@v"))
    full = kernel_s(op, (tensor,) * 3, MACHINE)
    assert 0.4 < kernel_s(op.with_attrs(causal=True), (tensor,) * 3, MACHINE) / full < 0.7
