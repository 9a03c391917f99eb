"""Properties that hold for random programs and every pass."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from dfcompiler.analysis.cost import FAST_BYTES, measure, op_costs
from dfcompiler.ir import parse, show, verify
from dfcompiler.pipeline import assemble, discover
from dfcompiler.target import parse_target
from passes.pipelines import DEFAULT
from tests.programs import assert_same_results
from tests.random_programs import Drawn, programs

TARGET = parse_target("cpu:x86-64-v4")
GPU = parse_target("cuda:sm_90")
PASSES = {name: kind for name, kind in discover().items() if name in DEFAULT}
STEPS = [name for name in DEFAULT if TARGET.kind in PASSES[name].runs_on]
PROBES = ({"S": 1}, {"S": 3}, {"S": 6})

steady = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(steady, max_examples=150)


@many
@given(drawn=programs())
def test_the_text_of_a_program_parses_to_the_program(drawn: Drawn) -> None:
    program = drawn.program
    parsed = parse(show(program))
    assert parsed == program
    verify(parsed)


@pytest.mark.parametrize("name", sorted(PASSES))
@steady
@given(drawn=programs())
def test_every_pass_keeps_meaning_and_claims_and_is_idempotent(name: str, drawn: Drawn) -> None:
    target = TARGET if name in STEPS else GPU
    pipeline = assemble([name], target, found=PASSES)
    live = assemble(["eliminate-dead-code"], found=PASSES)
    program = live.run(drawn.program, PROBES).program
    result = pipeline.run(program, PROBES)
    for bindings in PROBES[:2]:
        assert_same_results(program, result.program, bindings)
    again = pipeline.run(result.program, PROBES)
    assert show(again.program) == show(result.program)


@many
@given(drawn=programs())
def test_the_default_pipeline_keeps_meaning_and_all_claims(drawn: Drawn) -> None:
    program = drawn.program
    result = assemble(STEPS, TARGET, found=PASSES).run(program, PROBES)
    for bindings in PROBES:
        assert_same_results(program, result.program, bindings)
    assert parse(show(result.program)) == result.program


@many
@given(drawn=programs())
def test_no_schedule_is_below_its_bound(drawn: Drawn) -> None:
    compiled = assemble(STEPS, TARGET, found=PASSES).run(drawn.program, PROBES).program
    for program in (drawn.program, compiled):
        for bindings in PROBES:
            for fast_bytes in (64, 1 << 10, FAST_BYTES):
                metrics = measure(program, bindings, fast_bytes)  # raises below the bound
                costs = op_costs(program, bindings, fast_bytes)
                assert sum(cost.moved_bytes for cost in costs) == metrics.moved_bytes
