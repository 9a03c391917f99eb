"""The parts of `benchmarks.gpu` that need no GPU."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from benchmarks.gpu import error, medians, row_of, run, table, take_turns
from benchmarks.gpu_cases import CASES, AddNorm, Case, DecodeStep, Gated, attention, encoder
from dfcompiler.api import import_model
from dfcompiler.api.optimizing import rewritten
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit

CEILINGS = {"copy_bytes_per_s": 4e12, "bf16_flops_per_s": 8e14}
SECONDS = {
    "ours": 2e-4,
    "eager": 4e-4,
    "compile": 3e-4,
    "ours_graph": 1e-4,
    "eager_graph": 2e-4,
    "compile_graph": 1.5e-4,
}


def test_names_of_cases_are_different() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all((case.flops > 0) != (case.moved_bytes > 0) for case in CASES)


def test_flops_of_a_bert_large_layer() -> None:
    """Published: 111.7 GFLOP a layer at batch 8, sequence 512."""
    assert CASES[0].flops == pytest.approx(111.7e9, rel=2e-3)


def test_modules_run_and_are_the_same_each_time() -> None:
    case = encoder("small", (2, 1, 5, 32, 4), torch.float32)
    inputs = case.example(3)
    assert torch.equal(case.module()(**inputs), case.module()(**inputs))
    assert not torch.equal(case.example(3)["input"], case.example(4)["input"])
    step = DecodeStep(2, 32, 4, 2, 48)
    cache = torch.randn(2, 1, 2, 6, 8)
    assert step(torch.randn(1, 1, 32), cache, cache).shape == (1, 1, 32)


def test_causal_attention_counts_half() -> None:
    assert attention(2048, 64, True).flops * 2 == attention(2048, 64, False).flops


def test_a_result_that_is_not_a_number_is_infinitely_wrong() -> None:
    exact = torch.ones(4, dtype=torch.float64)
    assert error(torch.ones(4) * 1.01, exact) == pytest.approx(0.01, rel=1e-4)
    assert error(torch.tensor([1.0, 1.0, 1.0, float("nan")]), exact) == float("inf")


def test_contestants_take_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    clock = itertools.count(1)

    def timed(call: object, repeats: int) -> float:
        assert callable(call)
        call()
        return float(next(clock))

    times = take_turns(calls, timed, rounds=3)
    assert order[-6:] == ["a", "b"] * 3
    assert times == {"a": [3.0, 5.0, 7.0], "b": [4.0, 6.0, 8.0]}
    assert medians(times) == {"a": 5.0, "b": 6.0}


def test_rows_and_table() -> None:
    case = replace(CASES[0], flops=4e10)
    row = row_of(case, {"ours": 1e-3, "torch": 1e-3}, SECONDS, CEILINGS)
    assert row["right"]
    assert row["over"]["compile"] == pytest.approx(1.5)
    assert row["over"]["compile_graph"] == pytest.approx(1.5)
    assert row["share_of_ceiling"] == pytest.approx(0.5)
    wrong = row_of(case, {"ours": 2e-3, "torch": 1e-3}, SECONDS, CEILINGS)
    rows = [row, wrong, {"case": "softmax", "left_out": "540 s were over"}]
    result = {"machine": {"gpu": "G", "torch": "2"}, "ceilings": CEILINGS, "rows": rows}
    text = table(result)
    assert "| bert_large_layer | 200.0 | 100.0 | 2.00x | 1.50x |" in text
    assert "2.00 WRONG" in text
    assert "| softmax | left out: 540 s were over |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        run(tmp_path)


SMALL = (
    encoder("encoder", (1, 2, 9, 64, 2), torch.bfloat16),
    encoder("encoder_f16", (2, 1, 33, 64, 2), torch.float16),
    replace(attention(16384, 64, True), inputs=dict.fromkeys("qkv", (1, 2, 37, 64))),
    Case(
        "add_norm", torch.bfloat16, lambda: AddNorm(72), dict.fromkeys(("x", "residual"), (5, 72))
    ),
    Case("softmax", torch.bfloat16, lambda: torch.nn.Softmax(-1), {"input": (5, 72)}),
    Case("gated", torch.bfloat16, Gated, dict.fromkeys(("gate", "up"), (5, 72))),
    Case(
        "decode",
        torch.bfloat16,
        lambda: DecodeStep(2, 64, 4, 2, 96),
        {"x": (1, 1, 64), "keys": (2, 1, 2, 6, 16), "values": (2, 1, 2, 6, 16)},
    ),
)


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_cases_are_right_where_their_code_is_emulated(case: Case) -> None:
    module, inputs = case.module(), case.example(1)
    program = import_model(module, example_inputs=inputs)
    model = emulated_model(rewritten(program, parse_target("cuda:sm_90")).program)
    storage = {torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16}[case.dtype]
    arrays = {name: value.float().numpy().astype(storage) for name, value in inputs.items()}
    (found,) = model.run(arrays).values()
    assert found.dtype == storage
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(*(value.double() for value in inputs.values()))
        theirs = error(module(**inputs), exact)
    assert error(torch.from_numpy(found.astype(np.float32)), exact) <= 1.5 * theirs
