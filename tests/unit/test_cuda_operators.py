"""Every row of the operator table as CUDA code, emulated, against its numpy reference."""

from __future__ import annotations

import pytest

from dfcompiler.ir import OPERATORS
from dfcompiler.lowering.cuda.registry import CUDA_LOWERINGS
from tests.cuda_emulation import emulated_model, toolkit
from tests.operator_cases import CASES, Case, check

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators_agree_with_numpy(case: Case) -> None:
    check(case, emulated_model(case.program()))


def test_every_operator_has_a_lowering() -> None:
    assert set(CUDA_LOWERINGS) == set(OPERATORS)
