"""What `benchmarks.gpu` checks without timing it: its modules, its judgement, its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.gpu import main
from benchmarks.on_gpu import generation, judge
from benchmarks.on_gpu.checked_attention import attention, wide_heads
from benchmarks.on_gpu.checked_maps import maps
from benchmarks.on_gpu.checked_products import few_rows, large_products, products
from benchmarks.on_gpu.checked_rows import rows
from benchmarks.on_gpu.checks import Check, Index, Part, applied, check
from benchmarks.on_gpu.generation import COUNT, END, GENERATION, greedy
from benchmarks.on_gpu.measure import Attempts
from benchmarks.on_gpu.order import CASES, CHECKS, TIMED
from benchmarks.on_gpu.report import result_of, table
from dfcompiler.api.optimizing import rewritten
from dfcompiler.ir import interpret
from dfcompiler.target import parse_target
from tests.tolerances import assert_close

FAMILIES: dict[str, Callable[[], dict[str, Part]]] = {
    "products": products,
    "large_products": large_products,
    "few_rows": few_rows,
    "attention": lambda: attention() | wide_heads(),
    "rows": rows,
    "maps": maps,
}
SLOW = (
    *("large_deep", "large_along_n", "large_tails", "shallow", "wide_1"),
    *("causal_64", "causal_128", "full_128", "padding_128", "behind_128"),
)
"""Beginnings of the names of parts that differ from others in size alone."""
TINY = check(
    "tiny",
    torch.float32,
    {
        "turned": applied(torch.tanh, (3, 5)),
        "found": applied(lambda i: i + 1, Index((4,), 9)),
        "greater": applied(lambda x: x > 0, (7,)),
    },
    (("matmul", "tf32"),),
)


def test_checks_come_first_and_have_names_of_their_own() -> None:
    assert (*CHECKS, *TIMED) == CASES
    assert all(case.name.startswith("check_") for case in CHECKS)
    assert not any(case.name.startswith("check_") for case in TIMED)
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_give_what_torch_gives(family: str) -> None:
    """After the passes for a GPU: so a module that no kernel could serve is found here."""
    parts = {n: part for n, part in FAMILIES[family]().items() if not n.startswith(SLOW)}
    case = check(family, torch.float32, parts)
    program = rewritten(case.program(), parse_target("cuda:sm_90")).program
    inputs = case.example(1)
    with torch.no_grad():
        expected = case.module()(**inputs)
    found = interpret(program, {name: value.numpy() for name, value in inputs.items()})
    assert set(found) == set(expected) == set(parts)
    for name, value in expected.items():
        if value.dtype is not torch.bfloat16:  # which numpy does not have
            assert_close(found[name], value.numpy())


def test_no_output_is_all_zeros_or_constant_but_one() -> None:
    case = next(one for one in CHECKS if one.name == "check_maps_float32")
    for name, value in case.module()(**case.example(1)).items():
        assert value.numel() == 1 or value.double().std() > 0, name


class Fake:
    """A model that gives what it is told, and writes nothing else."""

    def __init__(self, results: Callable[[int], Mapping[str, Tensor]]) -> None:
        self.results, self.calls, self.graphs = results, 0, False

    def run(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self.calls += 1
        for name, value in self.results(self.calls).items():
            outputs[name].copy_(value)

    def synchronize(self) -> None:
        pass

    def keep_graphs(self, wanted: bool) -> None:
        self.graphs = wanted


Change = Callable[[Mapping[str, Tensor], int], Mapping[str, Tensor]]
"""What an artifact gives in a call of a number, from what torch gives."""


def judged(monkeypatch: pytest.MonkeyPatch, results: Change) -> dict[str, Any]:
    """The row of `TINY` for artifacts that change what torch computes."""
    inputs, module = TINY.example(3), TINY.module()
    doubles = {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
    right, exact = module(**inputs), module(**doubles)
    monkeypatch.setattr(judge, "reference", lambda case, seed: (inputs, exact, right))
    monkeypatch.setattr(judge, "opened", lambda path: Fake(lambda call: results(right, call)))
    attempts = Attempts(lambda name: None, lambda name, why: None, lambda: None)
    with torch.no_grad():
        return judge.judge(TINY, Path(), attempts)


def test_each_output_is_judged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    row = judged(monkeypatch, lambda right, call: dict(right))
    assert set(row["wrong"]) == {"ours", "ours_graph", "ours_tf32", "ours_tf32_graph"}
    assert not any(row["wrong"].values())
    assert row["errors"]["ours"] == row["errors"]["torch"]
    assert 0 < row["errors"]["torch"]["turned"] < 1e-6
    off = judged(monkeypatch, lambda right, call: {**right, "turned": right["turned"] * (1 + 4e-4)})
    assert (off["wrong"]["ours"], off["wrong"]["ours_tf32"]) == (["turned"], [])


@pytest.mark.parametrize("name", ["turned", "found", "greater"])
def test_what_is_not_written_is_wrong(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By the replay of a graph alone: the memory held the right result before."""
    row = judged(
        monkeypatch,
        lambda right, call: {n: v for n, v in right.items() if call < 4 or n != name},
    )
    assert row["wrong"]["ours"] == []
    assert row["wrong"]["ours_graph"] == [name]


def test_an_artifact_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def results(right: Mapping[str, Tensor], call: int) -> dict[str, Tensor]:
        calls.append(call)
        if len(calls) == 2:
            raise RuntimeError("illegal address")
        return dict(right)

    row = judged(monkeypatch, results)
    assert row["failed"] == {"ours_graph": "RuntimeError: illegal address"}
    assert set(row["wrong"]) == {"ours", "ours_tf32", "ours_tf32_graph"}


def test_limits() -> None:
    """1.5 times torch's error, one rounding where torch is luckier, nothing where it is exact."""
    assert judge.limit(1e-2, torch.bfloat16, "ours") == pytest.approx(1.5e-2)
    assert judge.limit(1e-9, torch.float32, "ours") == 1.5 * 2.0**-24
    assert judge.limit(1e-7, torch.float32, "ours_tf32") == 1.5 * 2.0**-11
    assert judge.limit(0.0, torch.float32, "ours_tf32") == 0
    assert judge.limit(float("inf"), torch.float16, "ours") == 0


def test_rounding_to_a_type_is_at_most_so_much() -> None:
    x = torch.linspace(1, 2, 100_001, dtype=torch.float64)
    for dtype, most in judge.ROUNDING.items():
        found = float(((x.to(dtype).double() - x) / x).abs().max())
        assert most / 2 < found <= most


def test_tokens_are_no_matter_of_rounding() -> None:
    tokens, gap = greedy(GENERATION.module(), COUNT)
    assert greedy(GENERATION.module().double(), COUNT)[0] == tokens
    assert gap > 1e-3
    assert COUNT // 2 < tokens.index(END) < COUNT - 1
    assert len(set(tokens)) > 10


def test_tokens_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program that is compiled, interpreted: its graph gives one token that is wrong."""
    target = parse_target("cuda:sm_90")
    program = rewritten(GENERATION.program(), target, **GENERATION.passes).program

    class Interpreted:
        def reset(self) -> None:
            pass

        def keep_graphs(self, wanted: bool) -> None:
            self.spoil = wanted

        def run(self, inputs: Mapping[str, np.ndarray], N: int) -> dict[str, np.ndarray]:  # noqa: N803
            found = interpret(program, inputs, symbols={"N": N}, persistent={})
            if getattr(self, "spoil", False):
                found["tokens"] = found["tokens"].copy()
                found["tokens"][0, 1] += 1
            return found

    monkeypatch.setattr(generation, "opened", lambda path: Interpreted())
    attempts = Attempts(lambda name: None, lambda name, why: None, lambda: None)
    row = judge.judge_tokens(GENERATION, Path(), attempts)
    assert row["failed"] == {}
    assert row["wrong"]["ours"] == []
    assert row["errors"]["ours_graph"] == dict.fromkeys(row["wrong"]["ours_graph"], 1)
    assert len(row["wrong"]["ours_graph"]) == 3
    assert row["seconds_a_token"]["ours"] > 0


def test_table_of_checks() -> None:
    errors = {f"o{i}": 1e-3 for i in range(12)}
    row = {
        "case": "check_products_bfloat16",
        "failed": {"ours_cutlass": "it gave no answer for 30 s"},
        "errors": {"torch": errors, "ours": errors, "ours_wgmma": {**errors, "o3": 0.7}},
        "wrong": {"ours": [], "ours_wgmma": ["o3"], "ours_tf32": list(errors)[:10]},
    }
    row["errors"]["ours_tf32"] = errors
    late = {"case": "check_maps_float32", "left_out": "540 s were over", "failed": {}}
    machine = {"gpu": "G", "driver": "1", "cuda": "13", "torch": "2", "memory_bytes": 1}
    ceilings = {"before": {"copy_bytes_per_s": 4e12, "bf16_flops_per_s": 8e14}}
    result = result_of(machine, ceilings, [row, late])
    text = table(result)
    assert "| products_bfloat16 | 12 of 12 | – |" in text
    assert "| products_bfloat16, wgmma | 11 of 12 | o3 0.7 (torch 0.001) |" in text
    assert "| products_bfloat16, cutlass | – | it gave no answer for 30 s |" in text
    assert "; 2 more |" in text
    assert "| maps_float32 | – | 540 s were over |" in text
    assert result["rows"] == result["must_show"] == []


def test_a_check_can_be_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Check] = []
    monkeypatch.setattr("benchmarks.gpu.prepare", lambda folder, target, cases: asked.extend(cases))
    main(["prepare", str(tmp_path), "--case", "check_maps_float16"])
    assert [case.name for case in asked] == ["check_maps_float16"]
