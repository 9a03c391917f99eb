"""Targets: their names, this machine's choice, and what is refused."""

from __future__ import annotations

import pytest

from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.target import CPU_TARGETS, CudaTarget, host_features, parse_cpu, parse_target


def test_cpu_is_the_best_target_that_this_machine_can_run() -> None:
    target = parse_target("cpu")
    assert target.name in CPU_TARGETS
    assert host_features().issuperset(target.cpu_features)


@pytest.mark.parametrize("name", CPU_TARGETS[1:])
def test_named_targets_fit_registers(name: str) -> None:
    target = parse_cpu(name)
    assert target.extended().name == name
    assert target.gemm_nr % target.vector_floats == 0
    # Accumulators, one row of B and one broadcast of A: 32 registers with AVX-512, 16 without.
    columns = target.gemm_nr // target.vector_floats
    registers = target.gemm_mr * columns + columns + 1
    assert registers <= (32 if target.isa == "x86-64-v4" else 16)


@pytest.mark.parametrize("name", ["cuda:sm_80", "cuda:sm_90"])
def test_gpu_targets_say_what_a_block_may_use(name: str) -> None:
    target = parse_target(name)
    assert isinstance(target, CudaTarget)
    assert target.name == name
    assert target.arch.startswith(name[-2:])
    assert 48 << 10 < target.shared_bytes <= 228 << 10


def test_what_only_processors_have_is_refused_for_gpus() -> None:
    with pytest.raises(UnsupportedError, match="cuda:sm_90 is a GPU"):
        parse_cpu("cuda:sm_90")


@pytest.mark.parametrize("name", ["tpu", "cuda", "cuda:sm_70", "cpu:avx", "cpu:x86-64-v5", ""])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of cpu"):
        parse_target(name)
