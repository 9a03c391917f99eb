"""Every row of the operator table, lowered, compiled and run against its numpy reference."""

from __future__ import annotations

import pytest
from compile_kernels import runnable_targets
from compile_sdfg import Compiled

from dfcompiler.ir import OPERATORS
from dfcompiler.lowering.registry import LOWERINGS
from tests.operator_cases import CASES, Case, check


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators_agree_with_numpy(case: Case) -> None:
    check(case, Compiled(case.program()))


@pytest.mark.parametrize("target", runnable_targets()[1:])
@pytest.mark.parametrize("name", ["rows_f32", "reduce_f32"])
def test_row_functions_agree_on_narrower_vectors(name: str, target: str) -> None:
    case = next(case for case in CASES if case.name == name)
    check(case, Compiled(case.program(), target=target))


def test_every_operator_has_a_lowering_and_a_case() -> None:
    assert set(LOWERINGS) == set(OPERATORS)
    tried = {op.kind for case in CASES for op in case.program().ops()}
    assert tried | {"matmul", "attention", "fused"} == set(OPERATORS)
