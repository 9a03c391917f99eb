"""Tuning on a GPU: what is measured, that the choice follows it, and what fails alone."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.analysis.gpu_expansions import NATIVE, tiles_of
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiling import RUNGS
from dfcompiler.analysis.gpu_time import BlockProduct
from dfcompiler.api import Options
from dfcompiler.api.optimizing import rewritten
from dfcompiler.api.tuning import tuned_on_gpu
from dfcompiler.codegen import gpu_measuring, gpu_timing, gpu_tuning
from dfcompiler.codegen.gpu_candidates import (
    Candidate,
    Epilogue,
    Measurable,
    candidates_of,
    measurable,
)
from dfcompiler.codegen.gpu_measuring import DeviceTimer, Measured, measured
from dfcompiler.codegen.gpu_timing import Timing, build_timing, launches_of, sources
from dfcompiler.codegen.gpu_tuning import Wanted, fastest
from dfcompiler.codegen.gpus import Driver, Gpu
from dfcompiler.codegen.library import Unit
from dfcompiler.codegen.timing_worker import Timer
from dfcompiler.codegen.tuning_database import Choice, TuningWarning
from dfcompiler.errors import DeviceError, ToolchainError, UsageError
from dfcompiler.ir import Op, Program, parse
from dfcompiler.target import CudaTarget, parse_target
from tests.cuda_emulation import toolkit
from tests.cuda_emulation.sources import compile_emulated
from tests.programs import product_text

H200 = parse_target("cuda:sm_90")
assert isinstance(H200, CudaTarget)
COMPLETE = replace(H200, libraries=("cutlass",))
emulated = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

LINEAR = Measurable(BlockProduct(1, 130, 72, 136, 2), "bf16", Epilogue(True, "gelu_tanh", "add"))
PROGRAM = """
program p(S) {
  input @x: bf16[S, 256]
  input @z: bf16[512, 256]
  weight @w: bf16[256, 512]
  weight @bias: bf16[512]
  output @y: bf16[S, 512]
  output @v: bf16[512, 512]
  state main {
    %0: bf16[512, 512] = matmul @z, @w
    %1: bf16[512, 512] = add %0, @bias
    @v: bf16[512, 512] = relu %1
    @y: bf16[S, 512] = matmul @x, @w
  }
}
"""


def plan(name: str, parts: int = 1, expansion: str = NATIVE) -> Plan:
    tile = next(t for t in tiles_of(expansion, 2, COMPLETE) if t.name == name)
    return Plan(0, tile, parts)


# ------------------------------------------------------------------------------------- candidates


def test_every_expansion_is_a_candidate() -> None:
    plain = replace(LINEAR, product=BlockProduct(1, 512, 512, 512, 2), epilogue=Epilogue(True))
    found = candidates_of(plain, COMPLETE)
    assert found[0].expansion == NATIVE
    assert {one.expansion for one in found} == {NATIVE, "wgmma", "cutlass", "cublaslt"}
    assert len(found) == len(set(found)) == 8
    assert {one.expansion for one in candidates_of(plain, H200)} == {NATIVE, "wgmma", "cublaslt"}


@pytest.mark.parametrize(
    ("epilogue", "library_s"),
    [
        (Epilogue(), True),
        (Epilogue(True, "none", "add"), True),
        (Epilogue(True, "relu"), True),
        (Epilogue(True, "gelu"), False),
        (Epilogue(True, "relu", "add"), False),
        (Epilogue(False, "none", "mul"), False),
    ],
)
def test_the_library_is_measured_where_it_rounds_once(epilogue: Epilogue, library_s: bool) -> None:
    found = candidates_of(replace(LINEAR, epilogue=epilogue), H200)
    assert (Candidate("cublaslt") in found) is library_s


def test_what_a_product_is_measured_as() -> None:
    program = rewritten(parse(PROGRAM), H200).program
    types = {f"@{c.name}": c.type for c in program.containers}
    found = {op.result: one_of(op, types) for op in program.ops() if "tile" in op.attrs}
    assert found["@v"].epilogue == Epilogue(True, "relu")
    assert found["@y"].epilogue == Epilogue()
    assert found["@v"].product == BlockProduct(1, 512, 512, 256, 2)


def test_more_than_a_product_is_not_measured() -> None:
    source = product_text(x="bf16[8, 64]", w="bf16[64, 64]", y="bf16[8, 64]")
    (op,) = parse(source).ops()
    types = [parse(source).containers[i].type for i in (0, 1)]
    half = Op("%half", op.type, "slice", ("%0",))
    gate = Op("@y", op.type, "fused", op.inputs, region=(op.with_result("%0"), half))
    assert measurable(op, types, 1, 8) is not None
    assert measurable(gate, types, 1, 8) is None


def one_of(op: Op, types: Mapping[str, object]) -> Measurable:
    found = measurable(op, [types[name] for name in op.inputs], 1, 512)  # type: ignore[misc]
    assert found is not None
    return found


# --------------------------------------------------------------------------- the launches, emulated

SOME = (
    Candidate(NATIVE, plan("MEDIUM")),
    Candidate(NATIVE, plan("FEW", 2)),
    Candidate("cublaslt"),
)


def emulated_timing(wanted: Measurable) -> Path:
    launches = list(launches_of({wanted: SOME}).values())
    units = sources(launches)
    return compile_emulated({name: text for u in units for name, text in u.files.items()})


@emulated
def test_launches_compute_the_product() -> None:
    timer = Timer(str(emulated_timing(LINEAR)))
    product, kind = LINEAR.product, 1
    extents = (product.batch, product.rows, product.columns, product.depth)
    m, n, k = extents[1:]
    assert timer._call("prepare", kind, *extents, 0, 2) == 0
    operands = timer.library.dfc_timing_operand
    operands.restype = ctypes.c_void_p

    def operand(which: int, *shape: int) -> np.ndarray:
        raw = np.ctypeslib.as_array(
            (ctypes.c_uint16 * int(np.prod(shape))).from_address(operands(which))
        )
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64).reshape(shape)

    a, b, residual = operand(0, m, k), operand(1, k, n), operand(2, m, n)
    bias = operand(3, n)
    assert np.abs(a).max() <= 1
    assert len(np.unique(a)) > 100
    x = a @ b + bias
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) + residual
    for number in range(2):
        assert timer.run(number, 0) == (1e-3, "")
        found = timer.result(kind, m * n).reshape(m, n)
        np.testing.assert_allclose(found, expected, rtol=2**-7, atol=2**-7)


@emulated
def test_a_launch_that_fails_costs_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of their own; there is no cuBLASLt where its name leads nowhere."""
    monkeypatch.setenv("DFC_CUBLASLT", "/nowhere/libcublasLt.so")
    found = measured(emulated_timing(LINEAR), LINEAR, [0, 2, 1], H200)
    # Two launches between events that are a millisecond apart.
    assert (found[0], found[1]) == (5e-4, 5e-4)
    assert "cublasLt" in str(found[2])


class Broken(Timer):
    """Launch 1 leaves an element out, launch 2 gives another number."""

    def __init__(self) -> None:
        self.last = 0

    def run(self, number: int, runs: int) -> tuple[float, str]:
        self.last = number
        return 1e-4 * (1 + number), ""

    def result(self, kind: int, count: int) -> np.ndarray:
        found = np.linspace(-1, 1, count)
        found[5] = (found[5], np.nan, 7.0, found[5] * (1 + 2**-8))[self.last]
        return found

    def _call(self, name: str, *arguments: object) -> int:
        return 0


def test_a_kernel_with_other_numbers_is_not_measured() -> None:
    said: list[Mapping[str, object]] = []
    job = {"type": 1, "extents": [1, 8, 8, 8], "along_depth": 0, "copies": 2}
    Broken().measure({**job, "launches": [0, 1, 2, 3]}, said.append, rounds=3)
    failed = {line["try"]: str(line["failed"]) for line in said if "failed" in line}
    assert set(failed) == {1, 2}
    assert "it gives other numbers: nan for" in failed[1]
    assert "7 for" in failed[2]
    seconds = said[-1]["seconds"]
    assert seconds == [1e-4, None, None, 4e-4]


def test_a_worker_that_ends_is_explained(tmp_path: Path) -> None:
    (tmp_path / "no.so").write_text("no library")
    found = measured(tmp_path / "no.so", LINEAR, [0, 1], H200)
    assert set(found) == {0, 1}
    assert all(
        str(why).startswith("the process that measures ended: OSError") for why in found.values()
    )


def test_a_worker_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As one does whose kernel waits for ever."""
    monkeypatch.setattr(gpu_measuring, "TRY_S", 0.2)
    monkeypatch.setattr(gpu_measuring.sys, "executable", str(tmp_path / "sleep"))
    (tmp_path / "sleep").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sleep").chmod(0o755)
    found = measured(tmp_path / "no.so", LINEAR, [0], H200)
    assert found == {0: "the process that measures ended: -9"}


def test_a_family_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = launches_of({LINEAR: SOME})
    kept = tuple(call for call in calls.values() if call.family == "gemm")
    others = {calls[LINEAR, SOME[2]]: "no"}
    built = Timing(Path("x.so"), kept, others)
    monkeypatch.setattr(gpu_measuring, "build_timing", lambda launches, target: built)
    monkeypatch.setattr(
        gpu_measuring,
        "measured",
        lambda library, wanted, launches, target: {n: 1.0 + n for n in launches},
    )
    found = DeviceTimer(H200)({LINEAR: SOME})[LINEAR]
    assert found == {SOME[0]: 1.0, SOME[1]: 2.0, SOME[2]: "no"}


def test_what_does_not_compile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile of CUTLASS in one type: all that needs it, and nothing else."""
    tiles = ("WIDE", "MEDIUM")
    some = [SOME[0], *(Candidate("cutlass", plan(name, 1, "cutlass")) for name in tiles)]
    one = replace(LINEAR, dtype="f16")
    calls = launches_of({one: some, LINEAR: some[1:2]})

    def compile_unit(unit: Unit, target: CudaTarget) -> Path:
        if "CutlassNarrow" in "".join(unit.files.values()) and unit.name != "timing":
            raise ToolchainError(f"{unit.name} does not compile")
        return Path(unit.name)

    monkeypatch.setattr(gpu_timing, "compile_unit", compile_unit)
    monkeypatch.setattr(gpu_timing, "stored", lambda key, make: Path("stored"))
    built = build_timing(list(calls.values()), COMPLETE)
    assert {call.storage for call in built.failures} == {"__half"}
    assert calls[one, some[0]] in built.launches
    assert calls[LINEAR, some[1]] in built.launches
    assert all(why.endswith("does not compile") for why in built.failures.values())


def test_nvcc_compiles_the_timing() -> None:
    one = replace(LINEAR, product=replace(LINEAR.product, rows=1), epilogue=Epilogue())
    calls = launches_of({one: [Candidate(NATIVE, plan("VECTOR", 2))]})
    built = build_timing(list(calls.values()), H200)
    assert (len(built.launches), built.failures) == (1, {})
    assert ctypes.CDLL(str(built.path)).dfc_timing_run


# -------------------------------------------------------------------------- what follows from times


def chosen(ends: tuple[int, ...], seconds: Sequence[Measured]) -> Choice | None:
    return fastest(Wanted(LINEAR, ends), seconds)


def test_the_fastest_is_taken() -> None:
    wgmma = Candidate("wgmma", plan("LARGE", 2, "wgmma"))
    times: Measured = {SOME[0]: 3.0, wgmma: 2.0, SOME[2]: "there is no library"}
    assert chosen((130,), [times]) == Choice("wgmma", ((0, *wgmma.plan.tile.shape, 2),))
    assert chosen((130,), [{**times, SOME[2]: 1.0}]) == Choice("cublaslt", ())
    assert chosen((130,), [{**times, wgmma: 2.99}]) == Choice(
        NATIVE, ((0, *SOME[0].plan.tile.shape, 1),)
    )
    assert chosen((130,), [{SOME[2]: "no", SOME[0]: "no"}]) is None


def test_a_plan_reaches_as_far_as_no_other_is_faster() -> None:
    first, second = SOME[0], Candidate("wgmma", plan("LARGE", 1, "wgmma"))
    times: list[Measured] = [{first: 1.0}, {first: 1.01, SOME[1]: 1.0}, {first: 3.0, second: 2.0}]
    assert chosen((64, 128, 256), times) == Choice(
        "wgmma", ((128, *first.plan.tile.shape, 1), (0, *second.plan.tile.shape, 1))
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with an H200 and an empty database."""
    gpu = Gpu("NVIDIA H200", "cuda:sm_90", 1 << 37)
    monkeypatch.setattr(gpu_tuning, "find_driver", lambda: Driver("13.0", (gpu,)))
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path))


class FakeTimer:
    """Seconds by a rule; keeps what it was asked for."""

    def __init__(self, rule: Callable[[Measurable, Candidate], float | str]) -> None:
        self.rule = rule
        self.asked: list[Measurable] = []

    def __call__(
        self, choices: Mapping[Measurable, Sequence[Candidate]]
    ) -> Mapping[Measurable, Measured]:
        self.asked += choices
        return {w: {one: self.rule(w, one) for one in some} for w, some in choices.items()}


def tuned(rule: Callable[[Measurable, Candidate], float | str]) -> tuple[Program, FakeTimer]:
    timer = FakeTimer(rule)
    return tuned_on_gpu(rewritten(parse(PROGRAM), H200), H200, timer).program, timer


def attributes(program: Program) -> dict[str, tuple[object, object]]:
    products = (op for op in program.ops() if op.attr("tuned", False))
    return {op.result: (op.attr("expansion"), op.attr("tile")) for op in products}


@pytest.mark.usefixtures("here")
def test_the_choice_follows_the_measurement_and_is_remembered() -> None:
    def rule(wanted: Measurable, one: Candidate) -> float:
        return 1.0 if one.expansion == ("wgmma" if wanted.product.rows > 64 else NATIVE) else 2.0

    program, timer = tuned(rule)
    assert {one.product.rows for one in timer.asked} == {*RUNGS, 512}
    found = attributes(program)
    assert set(found) == {"@v", "@y"}
    assert all(expansion == "wgmma" for expansion, _ in found.values())
    again, silent = tuned(rule)
    assert silent.asked == []
    assert again == program


@pytest.mark.usefixtures("here")
def test_another_device_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(lambda wanted, one: 1.0)
    gpu = Gpu("NVIDIA H100 80GB HBM3", "cuda:sm_90", 1 << 36)
    monkeypatch.setattr(gpu_tuning, "find_driver", lambda: Driver("13.0", (gpu,)))
    assert tuned(lambda wanted, one: 1.0)[1].asked


@pytest.mark.usefixtures("here")
def test_a_library_takes_all_rows() -> None:
    program, _ = tuned(lambda wanted, one: 1.0 if one.expansion == "cublaslt" else 2.0)
    assert attributes(program) == {"@v": ("cublaslt", None), "@y": ("cublaslt", None)}


@pytest.mark.usefixtures("here")
def test_failures_are_reported_and_cost_their_candidate() -> None:
    def rule(wanted: Measurable, one: Candidate) -> float | str:
        return "an illegal address" if one.expansion == "wgmma" else 1.0

    with pytest.warns(TuningWarning) as caught:
        program, _ = tuned(rule)
    said = {str(one.message) for one in caught}
    assert any(
        one.startswith("wgmma 128×128×64 of the product 512 × 512 × 256 of bf16 and ")
        and one.endswith(" more kernels were not measured: an illegal address")
        for one in said
    )
    assert {expansion for expansion, _ in attributes(program).values()} == {None}


@pytest.mark.usefixtures("here")
def test_where_nothing_was_measured_the_model_s_choice_stays() -> None:
    with pytest.warns(TuningWarning) as caught:
        program, _ = tuned(lambda wanted, one: "no")
    assert "no kernel was measured; the model's choice stays" in str(caught[-1].message)
    assert attributes(program) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tuned(lambda wanted, one: 1.0)[1].asked


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (None, "this machine has none"),
        (Driver("13.0", ()), "this machine has none"),
        (Driver("13.0", (Gpu("A100", "cuda:sm_80", 1 << 36),)), "the first GPU here is A100"),
    ],
)
def test_tuning_needs_the_gpu(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, found: str
) -> None:
    monkeypatch.setattr(gpu_tuning, "find_driver", lambda: driver)
    with pytest.raises(DeviceError, match=f"tuning for cuda:sm_90 measures .*; {found}") as caught:
        Options(target="cuda:sm_90", tune=True).check()
    assert "compile with --tune on a machine that has one" in caught.value.hint


@pytest.mark.usefixtures("here")
def test_one_expansion_for_all_leaves_nothing_to_tune() -> None:
    with pytest.raises(UsageError, match="tune chooses among the expansions of products"):
        Options(target="cuda:sm_90", tune=True, expansions={"matmul": "wgmma"}).check()
    Options(target="cuda:sm_90", tune=True).check()
