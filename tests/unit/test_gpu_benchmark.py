"""The parts of `benchmarks.gpu` that need no GPU."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import run
from benchmarks.on_gpu import measure as measuring
from benchmarks.on_gpu.cases import attention, encoder
from benchmarks.on_gpu.goals import GOALS, outcomes
from benchmarks.on_gpu.measure import Attempts, WrongError, error, exact_of, judged
from benchmarks.on_gpu.modules import DecodeStep, rotary_tables, rotated
from benchmarks.on_gpu.order import TIMED
from benchmarks.on_gpu.peers import PEERS, Contestant, MissingError, Work
from benchmarks.on_gpu.report import PEERS as COLUMNS
from benchmarks.on_gpu.report import result_of, spread, table, with_ratios
from benchmarks.on_gpu.supervise import supervise
from benchmarks.on_gpu.timing import ROUNDS as ROUNDS_OF_A_CASE
from benchmarks.on_gpu.timing import by_clock, take_turns
from tests.rehearsal import rehearsal
from tests.tiny_gpu_case import TINY

ROOT = Path(__file__).resolve().parents[2]
CEILINGS = {"copy_bytes_per_s": 4e12, "bf16_flops_per_s": 8e14}
MACHINE = {"gpu": "G", "driver": "1", "cuda": "13", "torch": "2", "memory_bytes": 1}
ROUNDS = {
    "ours": [2e-4, 1.9e-4, 2.1e-4],
    "ours_wgmma": [1e-4] * 3,
    "eager": [4e-4] * 3,
    "compile": [3e-4] * 3,
    "ours_graph": [1e-4] * 3,
    "eager_graph": [2e-4] * 3,
    "compile_graph": [1.1e-4] * 3,
}
ROW = {
    "case": "bert_large_layer",
    "flops": 4e10,
    "moved_bytes": 0.0,
    "errors": {"torch": 1e-3, "ours": 1.2e-3, "ours_graph": 1.2e-3, "ours_wgmma": 1e-3},
    "rounds": ROUNDS,
    "failed": {"ours_cublaslt": "DeviceError: there is no libcublasLt", "jax": "not | installed"},
}


def test_bytes_or_arithmetic_are_the_bound_of_a_case() -> None:
    assert all((case.flops > 0) != (case.moved_bytes > 0) for case in TIMED)


def test_every_case_has_a_goal_besides_its_error() -> None:
    rows = [with_ratios({"case": case.name, "failed": {}}, CEILINGS) for case in TIMED]
    found = [one["case"] for one in outcomes(rows)]
    assert all(found.count(case.name) > 1 for case in TIMED)
    assert {one["what"] for one in outcomes(rows)} == {goal.what for goal in GOALS}


def test_every_peer_is_known_and_has_a_column() -> None:
    assert {peer for case in TIMED for peer in case.peers} == set(PEERS)
    assert set(PEERS) <= set(COLUMNS)


def test_flops_of_a_bert_large_layer() -> None:
    """Published: 111.7 GFLOP a layer at batch 8, sequence 512."""
    assert TIMED[0].flops == pytest.approx(111.7e9, rel=2e-3)


def test_modules_run_and_are_the_same_each_time() -> None:
    case = encoder("small", (2, 1, 5, 32, 4), torch.float32)
    inputs = case.example(3)
    assert torch.equal(case.module()(**inputs), case.module()(**inputs))
    assert not torch.equal(case.example(3)["input"], case.example(4)["input"])
    step = DecodeStep(2, 32, 4, 2, 48, 6)
    cache = torch.randn(2, 1, 2, 6, 8)
    assert step(torch.randn(1, 1, 32), cache, cache).shape == (1, 1, 32)


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_weights_are_the_same_on_other_vector_units(capability: str) -> None:
    """The bound of 1 / √96 is no power of two: a fused multiply-add rounds once, others twice."""
    case = replace(TINY, dtype=torch.float16, build=lambda: torch.nn.Linear(96, 4096))
    code = """
import hashlib
from dataclasses import replace
import torch
from tests.tiny_gpu_case import TINY
case = replace(TINY, dtype=torch.float16, build=lambda: torch.nn.Linear(96, 4096))
print(hashlib.sha256(case.module().weight.detach().numpy()).hexdigest())
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    weight = next(case.module().parameters()).detach().numpy()
    assert done.stdout == f"{hashlib.sha256(weight).hexdigest()}\n", done.stderr


def test_rotary_embedding_depends_on_distances_alone() -> None:
    q, k = torch.randn(2, 8, dtype=torch.float64)
    dots = [
        rotated(q, *rotary_tables(at + 3, 8)) @ rotated(k, *rotary_tables(at, 8)) for at in (0, 5)
    ]
    assert float(dots[0]) == pytest.approx(float(dots[1]), rel=1e-5)
    assert torch.equal(rotated(q, *rotary_tables(0, 8)), q)


def test_causal_attention_counts_half() -> None:
    assert attention(2048, 64, True).flops * 2 == attention(2048, 64, False).flops


def test_the_exact_result_may_be_computed_in_parts() -> None:
    case = replace(attention(2048, 64, True), inputs=dict.fromkeys("qkv", (2, 3, 7, 16)))
    module, inputs = case.module(), case.example(1)
    parts = exact_of(module, inputs, case.apart)
    assert parts.dtype == torch.float64
    torch.testing.assert_close(parts, exact_of(module, inputs), rtol=1e-12, atol=1e-12)


def test_a_result_that_is_not_a_number_is_infinitely_wrong() -> None:
    exact = torch.ones(4, dtype=torch.float64)
    assert error(torch.ones(4) * 1.01, exact) == pytest.approx(0.01, rel=1e-4)
    assert error(torch.tensor([1.0, 1.0, 1.0, float("nan")]), exact) == float("inf")


@pytest.mark.parametrize(
    ("name", "found", "is_right"),
    [("ours", 1.014, True), ("ours_wgmma", 1.016, False), ("jax", 1.016, True), ("jax", 2, False)],
)
def test_ours_is_wrong_sooner_than_a_peer(name: str, found: float, is_right: bool) -> None:
    contestant = Contestant(lambda: torch.full((4,), found), lambda _: 0.0)
    errors = {"torch": 0.01}
    exact = torch.ones(4, dtype=torch.float64)
    if is_right:
        assert judged(errors, exact, name, lambda: contestant) is contestant
    else:
        with pytest.raises(WrongError, match=r"that of torch 0\.01"):
            judged(errors, exact, name, lambda: contestant)
    assert errors[name] == pytest.approx(found - 1, rel=1e-3)


def at_once(name: str, function: Callable[[], float]) -> float | None:
    return function()


def test_contestants_take_turns() -> None:
    order: list[str] = []
    clock = itertools.count(1)

    def contestant(name: str) -> Callable[[int], float]:
        def timed(repeats: int) -> float:
            order.append(name)
            return float(next(clock))

        return timed

    times = take_turns({"a": contestant("a"), "b": contestant("b")}, at_once, rounds=3)
    assert order[-6:] == ["a", "b"] * 3
    assert times == {"a": [9.0, 11.0, 13.0], "b": [10.0, 12.0, 14.0]}


def test_a_clock_waits_for_the_last_call() -> None:
    results, waited = iter(range(4)), []
    seconds = by_clock(lambda: next(results), waited.append)(4)
    assert waited == [3]
    assert seconds > 0


def test_who_fails_is_out_and_the_others_go_on() -> None:
    said: list[tuple[str, ...]] = []
    checks: list[int] = []
    attempts = Attempts(
        lambda name: said.append(("begin", name)),
        lambda name, why: said.append(("fail", name, why)),
        lambda: checks.append(len(said)),
    )

    def lost(repeats: int) -> float:
        raise RuntimeError("CUDA error: out of it\nand more")

    def missing() -> float:
        raise MissingError("it is not installed")

    assert attempts("jax", missing) is None
    times = take_turns({"ours": lost, "eager": lambda repeats: 1.0}, attempts, rounds=2)
    assert times == {"eager": [1.0, 1.0]}
    assert attempts.failures == {
        "jax": "it is not installed",
        "ours": "RuntimeError: CUDA error: out of it",
    }
    assert [one for one in said if one[0] == "fail"] == [
        ("fail", name, why) for name, why in attempts.failures.items()
    ]
    assert said.count(("begin", "ours")) == 1
    assert len(checks) == 2


def test_a_process_that_ends_or_hangs_costs_one_contestant() -> None:
    names = ("crash", "fine", "hang", "lost", "no reference", "last")
    rows = list(supervise(rehearsal, names, budget_s=300, step_s=10))
    assert rows == [
        {"case": "crash", "failed": {"ours": "its process ended with SIGABRT"}},
        {"case": "fine", "failed": {}},
        {"case": "hang", "failed": {"ours_wgmma": "it gave no answer for 10 s"}},
        {"case": "lost", "failed": {"ours": "DeviceError: illegal address"}},
        {"case": "no reference", "failed": {"reference": "its process ended with status 3"}},
        {"case": "last", "failed": {}},
    ]


def test_cases_without_time_left_say_so() -> None:
    assert list(supervise(rehearsal, ("fine", "last"), budget_s=0)) == [
        {"case": name, "left_out": "0 s were over", "failed": {}} for name in ("fine", "last")
    ]


def test_ratios() -> None:
    row = with_ratios(ROW, CEILINGS)
    ours = row["ours"]["ours"]
    assert ours["over"] == pytest.approx(
        {"eager": 2.0, "compile": 1.5, "eager_graph": 2.0, "compile_graph": 1.1}
    )
    assert ours["share"] == pytest.approx(0.5)
    assert ours["error"] == pytest.approx(1.2)
    assert row["ours"]["ours_wgmma"]["over"] == pytest.approx({"eager": 4.0, "compile": 3.0})
    assert row["spread"]["ours"] == pytest.approx(0.1)
    assert spread([1.0]) == 0.0


def test_a_wrong_graph_is_an_error_of_the_artifact() -> None:
    row = with_ratios({**ROW, "errors": {**ROW["errors"], "ours_graph": 4e-3}}, CEILINGS)
    assert row["ours"]["ours"]["error"] == pytest.approx(4.0)


def result() -> dict[str, Any]:
    late = {"case": "softmax", "left_out": "540 s were over", "failed": {}}
    dead = {"case": "gated", "failed": {"reference": "RuntimeError: out of memory"}}
    ceilings = {"before": CEILINGS, "after": {**CEILINGS, "copy_bytes_per_s": 3e12}}
    return result_of(MACHINE, ceilings, [ROW, late, dead])


def test_the_table_has_a_line_for_every_artifact() -> None:
    text = table(result())
    assert "| bert_large_layer | 200.0 | 100.0 | 10.0% | 2.00x | 1.50x |" in text
    assert "| bert_large_layer, wgmma | 100.0 | – |" in text
    assert "| bert_large_layer, cublaslt | DeviceError: there is no libcublasLt |" in text
    assert "* jax: not | installed (bert_large_layer)" in text
    assert "* all: 540 s were over (softmax)" in text
    assert "* reference: RuntimeError: out of memory (gated)" in text
    assert "before: copy 4.00 TB/s, bf16 product 800 TFLOP/s; after: copy 3.00 TB/s" in text
    blocks = [[line for line in part.splitlines() if line[:1] == "|"] for part in text.split("##")]
    assert [len({line.count("|") for line in block}) for block in blocks] == [1, 1, 0]


def test_what_must_be_shown() -> None:
    found = {(one["case"], one["what"]): one for one in result()["must_show"]}
    compiled = found["bert_large_layer", "speed over torch.compile, with and without graphs"]
    assert compiled["found"] == pytest.approx({"ours": 1.1, "ours_wgmma": 3.0})
    assert compiled["reached"] == "no, but by ours_wgmma"
    assert (
        found["bert_large_layer", "speed over eager, with and without graphs"]["reached"] == "yes"
    )
    assert found["bert_large_layer", "share of the bf16 ceiling"]["reached"] == "no"
    assert found["bert_large_layer", "error over that of torch"]["reached"] == "yes"
    assert found["softmax", "share of the copy bandwidth"]["reached"] == "not measured"
    wrong = with_ratios({"case": "gated", "failed": {"ours": "wrong: it is far off"}}, CEILINGS)
    assert {one["reached"] for one in outcomes([wrong])} == {"no"}


def test_a_case_is_judged_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = replace(encoder("tiny", (1, 1, 5, 32, 2), torch.bfloat16), peers=("eager", "jax"))
    module, inputs = case.module(), case.example(1)
    with torch.no_grad():
        exact, output = exact_of(module, inputs), module(**inputs)

    def contestant(name: str, work: Work) -> Contestant:
        if name == "jax":
            raise MissingError("jax is not installed")
        graph = None if name == "eager" else lambda: Contestant(lambda: -output, lambda _: 1e-4)
        wrong = name == "ours_wgmma"
        return Contestant(lambda: output + 1 if wrong else output, lambda _: 2e-4, graph)

    monkeypatch.setattr(measuring, "ready", contestant)
    work = Work(case, tmp_path, module, inputs, output)
    monkeypatch.setattr(measuring, "reference", lambda case, folder, seed: (work, exact))
    attempts = Attempts(lambda name: None, lambda name, why: None, lambda: None)
    row = measuring.measure(case, tmp_path, attempts)
    assert {name: len(times) for name, times in row["rounds"].items()} == dict.fromkeys(
        ("ours", "ours_cutlass", "ours_cublaslt", "eager"), ROUNDS_OF_A_CASE
    )
    assert row["errors"]["ours"] == row["errors"]["torch"] > 0
    assert row["errors"]["ours_graph"] == pytest.approx(2, rel=1e-2)
    assert set(row["failed"]) == {
        "ours_wgmma",
        "jax",
        "ours_graph",
        "ours_cutlass_graph",
        "ours_cublaslt_graph",
    }
    assert row["failed"]["ours_wgmma"].startswith("wrong: its relative error is 1, that of torch")
    assert "| tiny, wgmma | wrong: its relative error is" in table(
        result_of(MACHINE, {"before": CEILINGS}, [row])
    )


def test_without_a_gpu_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^benchmarks.gpu: torch finds no CUDA device; 'run'"):
        next(run(tmp_path, ["softmax"]))
