"""Costs of reading tensors in other orders, by hand."""

from __future__ import annotations

import pytest

from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.transactions import Memory, runs
from dfcompiler.ir import DType, Layout, TensorType
from dfcompiler.reference.transactions import measure_memory
from dfcompiler.target import parse_target

MEMORY = Memory(
    bandwidth=1e9,
    line_bytes=64,
    latency_s=1e-7,
    concurrency=10,
    overhead_s=1e-6,
    fast_bytes=1 << 16,
)
HEADS = TensorType(DType.F32, (2, 12, 128, 32))
SIDE_BY_SIDE = Layout.permuted(0, 2, 1, 3)


def test_runs_of_neighbours_and_the_walk_back_to_them() -> None:
    rows = (0, 1, 2, 3)
    assert runs(HEADS, Layout(), rows) == (2 * 12 * 128 * 32 * 4, 0)
    assert runs(HEADS, SIDE_BY_SIDE, rows) == (32 * 4, 128)
    assert runs(HEADS, Layout.permuted(0, 1, 3, 2), rows) == (4, 32)
    assert runs(HEADS, SIDE_BY_SIDE, (0, 2, 1, 3)) == (2 * 12 * 128 * 32 * 4, 0)
    one_head = TensorType(DType.F32, (2, 1, 128, 32))
    assert runs(one_head, SIDE_BY_SIDE, rows) == (2 * 128 * 32 * 4, 0)


def test_short_runs_pay_for_whole_lines_and_for_waiting() -> None:
    total = 1 << 20
    assert MEMORY.run_s(total, total) == pytest.approx(total / 1e9)
    assert MEMORY.run_s(total, 16) == pytest.approx(total / 16 * 64 / 1e9)
    slow = Memory(1e9, 64, 1e-6, 10, 0.0, 1 << 16)
    assert slow.run_s(total, 64) == pytest.approx(total / 64 * 1e-6 / 10)
    assert MEMORY.run_s(0, 4) == 0


def test_lines_that_are_still_there_are_read_once() -> None:
    near, far = (TensorType(DType.F32, (4, rows, 2)) for rows in (128, 1 << 14))
    order, layout = (0, 1, 2), Layout.permuted(1, 0, 2)
    total = 4 * 128 * 2 * 4
    assert MEMORY.walk_s(near, layout, order) == pytest.approx(total / 1e9)
    total = 4 * (1 << 14) * 2 * 4
    assert MEMORY.walk_s(far, layout, order) == pytest.approx(total / 8 * 64 / 1e9)


def test_a_copy_reads_writes_and_begins() -> None:
    total = 2 * 12 * 128 * 32 * 4
    expected = 2 * total / 1e9 + 1e-6
    assert MEMORY.copy_s(HEADS, Layout(), SIDE_BY_SIDE) == pytest.approx(expected)


def test_calibration_measures_a_memory() -> None:
    target = parse_target("cpu")
    found = measure_memory(target, 1, seconds=0.01)
    nominal = Memory.nominal(Machine.nominal(target))
    assert found.line_bytes == nominal.line_bytes
    assert found.bandwidth > 0
    assert 0 < found.latency_s < 1e-3
    assert found.concurrency >= 1
    assert found.overhead_s >= 0
