"""Calibration: known weights are found again; rates come from the samples that show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.time_model import features, kernel_s
from dfcompiler.ir import Op, verify
from dfcompiler.ir.types import DType, Layout, PhysicalAxis, TensorType
from dfcompiler.reference.calibration import (
    ENCODERS,
    Measured,
    encoder_program,
    fit,
    samples_of,
    with_stream_rates,
)
from dfcompiler.target import parse_target

MACHINE = replace(
    Machine.nominal(parse_target("cpu:x86-64-v4"), threads=2), l2_bytes=2 << 20, l3_bytes=64 << 20
)
SMALL = replace(ENCODERS[0], layers=1)


def operators(program, sizes):  # type: ignore[no-untyped-def]
    from dfcompiler.analysis.concrete import Concrete

    concrete = Concrete(program, sizes)
    return [pair for state in program.states() for pair in concrete.typed_ops(state)]


def packed(program):  # type: ignore[no-untyped-def]
    """The program with matrices in panels, as the products of a compiled one read them."""
    layout = Layout((PhysicalAxis(1, 64), PhysicalAxis(0), PhysicalAxis(1, 64, True)))
    containers = tuple(
        replace(c, type=replace(c.type, layout=layout))
        if c in program.weights and c.type.rank == 2 and c.name != "table"
        else c
        for c in program.containers
    )
    return replace(program, containers=containers)


def measured(machine: Machine, sizes: dict[str, int]) -> Measured:
    """What a machine would measure that the model describes exactly."""
    program = packed(encoder_program(SMALL))
    seconds = [kernel_s(op, types, machine) or 1e-9 for op, types in operators(program, sizes)]
    return Measured(program, sizes, seconds)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_encoders_are_programs(encoder) -> None:  # type: ignore[no-untyped-def]
    program = verify(encoder_program(replace(encoder, layers=1)))
    assert set(program.data) == {c.name for c in program.weights}


def test_weights_are_found_again() -> None:
    true = {"rows": {"values": 3.0, "work": 1.5, "meet": 2.0}}
    machine = replace(MACHINE, weights=true)
    samples = [
        sample
        for tokens in (1, 16, 100, 1000, 5000)
        for sample in measured(machine, {"B": 1, "S": tokens}).samples(machine)
    ]
    found = replace(MACHINE, weights=fit(samples))
    program = encoder_program(SMALL)
    for op, types in operators(program, {"B": 3, "S": 300}):
        if op.kind == "layer_norm":
            assert kernel_s(op, types, found) == pytest.approx(
                kernel_s(op, types, machine), rel=0.05
            )


def test_no_weight_is_negative() -> None:
    random = np.random.default_rng(0)
    one = measured(MACHINE, {"B": 1, "S": 64})
    noisy = replace(one, seconds=[s * random.uniform(0.5, 2) for s in one.seconds])
    for weights in fit(noisy.samples(MACHINE)).values():
        assert all(weight > 0 for weight in weights.values())


def test_the_stream_s_rate_comes_from_products_of_few_rows() -> None:
    weights = {"packed product": {"stream": 1.0}}
    truth = replace(MACHINE, l3_rate=5e9, weights=weights)
    found = with_stream_rates(MACHINE, [measured(truth, {"B": 1, "S": 1})])
    assert found.l3_rate == pytest.approx(5e9, rel=0.01)
    assert found.memory_rate == MACHINE.memory_rate


def test_samples_follow_the_program_s_order() -> None:
    program = encoder_program(SMALL)
    pairs = operators(program, {"B": 1, "S": 8})
    seconds = [float(number) for number, _ in enumerate(pairs, 1)]
    samples = samples_of(program, {"B": 1, "S": 8}, seconds, MACHINE)
    first = next(s for s in samples if s.family == "attention")
    at = [op.kind for op, _ in pairs].index("attention")
    assert first.seconds == seconds[at]
    assert first.features == features(*pairs[at], MACHINE)


def test_a_table_is_not_streamed() -> None:
    from dfcompiler.analysis.program_time import weights_of

    tensor = TensorType(DType.F32, (4096, 256))
    program = encoder_program(SMALL)
    assert program.container("table").type == tensor
    matrices = 4 * 256 * 256 + 2 * 256 * 1024
    biases = 5 * 256 + 1024
    assert weights_of(program) == 4 * (matrices + biases + 256)
    assert isinstance(next(program.ops()), Op)
