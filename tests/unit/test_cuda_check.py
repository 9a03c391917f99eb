"""`make cuda-check` as a test: nvcc takes every GPU kernel and every operator's code."""

from __future__ import annotations

import pytest

from tests.cuda_check import main
from tests.unit.test_cuda_artifact import has_nvcc


@pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")
def test_nvcc_compiles_everything_for_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().out
