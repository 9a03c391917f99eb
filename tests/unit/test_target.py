"""Targets: their names, this machine's choice, and what is refused."""

from __future__ import annotations

import pytest

from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.target import TARGETS, host_features, parse_target


def test_cpu_is_the_best_target_that_this_machine_can_run() -> None:
    target = parse_target("cpu")
    assert target.name in TARGETS
    assert host_features().issuperset(target.cpu_features)


@pytest.mark.parametrize("name", TARGETS[1:])
def test_named_targets_fit_registers(name: str) -> None:
    target = parse_target(name)
    assert target.extended().name == name
    assert target.gemm_nr % target.vector_floats == 0
    # Accumulators, one row of B and one broadcast of A: 32 registers with AVX-512, 16 without.
    columns = target.gemm_nr // target.vector_floats
    registers = target.gemm_mr * columns + columns + 1
    assert registers <= (32 if target.isa == "x86-64-v4" else 16)


def test_gpu_targets_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="cuda:sm_90 is a GPU"):
        parse_target("cuda:sm_90")


@pytest.mark.parametrize("name", ["tpu", "cpu:avx", "cpu:x86-64-v5", ""])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of cpu"):
        parse_target(name)
