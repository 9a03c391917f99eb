"""Lowering for GPUs: which kernels a program becomes, and that nvcc compiles them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.codegen.dace_sources import ProgramSource, generate_program
from dfcompiler.codegen.library import PRELUDE, compile_unit
from dfcompiler.codegen.units import family_units, program_units
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import lower
from dfcompiler.lowering.backends import CUDA
from dfcompiler.target import parse_target
from tests.control_cases import (
    CASES,
    CHOOSE,
    LOOKUP,
    STORE,
    UNTIL,
    check,
    check_bad_lookup,
    check_bad_store,
)
from tests.cuda_emulation import emulated_model, toolkit
from tests.tolerances import assert_close

GPU = parse_target("cuda:sm_90")
MOVES = """
program moves(B, S) {
  input  @x: f32[B, S, 7, 64]
  input  @bias: bf16[64]
  output @y: f32[B, 7, S, 64]
  output @z: bf16[B, S, 7, 64]
  state main {
    %0: f32[B, S, 7, 64] = exp @x
    %1: f32[64] = cast @bias {to = f32}
    %2: f32[B, S, 7, 64] = add %0, %1
    @y: f32[B, 7, S, 64] = transpose %2 {perm = [0, 2, 1, 3]}
    @z: bf16[B, S, 7, 64] = cast %2 {to = bf16}
  }
}
"""
LAYERS = """
program layers(S) {
  input  @x: f32[S, 9, 64]
  output @y: f32[S, 9, 64]
  output @z: f32[64, 9, S]
  state main {
    %8: f32[S, 9, 64] = tanh @x
    %9: f32[S, 9, 64] = add %8, @x
    %10: f32[S, 9, 64] = tanh %9
    %11: f32[S, 9, 64] = add %10, %9
    %12: f32[S, 9, 64] = tanh %11
    @y: f32[S, 9, 64] = add %12, %11
    @z: f32[64, 9, S] = transpose @y {perm = [2, 1, 0]}
  }
}
"""


def generated(text: str) -> ProgramSource:
    """The host code and the device code of a program."""
    lowered = lower(parse(text), GPU)
    return generate_program(lowered.sdfg, PRELUDE, lowered.work)


def test_ranges_become_one_where_elements_lie_in_their_order() -> None:
    device = generated(MOVES).device
    assert "pack_a0.load(base_a0 + _first, _count);" in device
    # A pack lies inside of one row of 64, so that the broadcast vector moves in packs too.
    assert "pack_a1.load(base_a1 + (_first - (64 * (_first / 64))), _count);" in device


def test_equal_kernels_are_one_whatever_their_parameters_are_called() -> None:
    device = generated(LAYERS).device
    assert device.count("__global__") == 3
    assert device.count("launch_following(add_0_1_1,") == 3
    assert device.count("launch_following(tanh_0_0_1,") == 3
    # Sorted by name, %10 comes before %9: the launches follow the kernel's order.
    assert "tanh_0_2_1_args[] = { (void *)&sym_S, (void *)&v9, (void *)&v10 }" in device
    assert "tanh_0_4_1_args[] = { (void *)&sym_S, (void *)&v11, (void *)&v12 }" in device


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_shared_kernels_get_their_own_arguments() -> None:
    x = np.random.default_rng(0).standard_normal((5, 9, 64)).astype(np.float32)
    found = emulated_model(LAYERS).run({"x": x})
    expected = interpret(parse(LAYERS), {"x": x})
    for name, array in expected.items():
        assert_close(found[name], array, name)


def test_a_call_is_free_of_synchronization_unless_it_branches() -> None:
    assert "Synchronize" not in generated(MOVES).code
    assert "Synchronize" not in generated(UNTIL).code
    frame = generated(CHOOSE).code
    assert frame.count("cudaStreamSynchronize(") == 2
    assert "if (host_flag0)" in frame


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
@pytest.mark.parametrize("name", CASES)
def test_the_course_follows_the_data(name: str) -> None:
    check(CASES[name], emulated_model(CASES[name].text))


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_a_bad_index_is_reported_and_touches_nothing_outside() -> None:
    check_bad_lookup(emulated_model(LOOKUP))
    check_bad_store(emulated_model(STORE))


def test_missing_operators_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {k: v for k, v in CUDA.lowerings.items() if k not in ("exp", "transpose")}
    backend = replace(CUDA, lowerings=kept)
    monkeypatch.setattr("dfcompiler.lowering.driver.backend_of", lambda _: backend)
    with pytest.raises(UnsupportedError) as caught:
        lower(parse(MOVES), GPU)
    assert "2 operators cannot be lowered to code for GPUs" in str(caught.value)
    assert "exp: %0" in str(caught.value)
    assert "transpose: @y" in str(caught.value)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is missing")
@pytest.mark.parametrize(
    ("text", "target"),
    # A loop for sm_90 is part of the artifact of test_cuda_loops.
    [(MOVES, "cuda:sm_80"), (MOVES, "cuda:sm_90"), (UNTIL, "cuda:sm_80")],
    ids=["moves-80", "moves-90", "until-80"],
)
def test_nvcc_compiles_frame_and_kernels(text: str, target: str) -> None:
    gpu = parse_target(target)
    lowered = lower(parse(text), gpu)
    frame = generate_program(lowered.sdfg, PRELUDE, lowered.work)
    for unit in (*program_units(frame, gpu), *family_units(lowered.instances)):
        assert (compile_unit(unit, gpu) / "unit.o").is_file()


HOST = """
program host(N) {
  input @x: f32[N, 4]
  output @y: f32[1, 4]
  output @n: i64[]
  state start {
    @n: i64[] = constant {value = 0}
  }
  loop rows for i in 0..N {
    state row {
      @y: f32[1, 4] = slice @x {starts = [i, 0]}
    }
    loop again for j in 0..3 {
      state more {
        %0: i64[] = constant {value = 1}
        @n: i64[] = add @n, %0
      }
    }
  }
  loop twice for k in 0..2*N {
    loop inner for l in 0..3 {
      state most {
        %0: i64[] = dim {value = l}
        @n: i64[] = add @n, %0
      }
    }
  }
}
"""


def test_loops_whose_variable_the_host_needs_are_the_hosts() -> None:
    """The first loop slices by its variable, its inner one is part of it; the last is a graph."""
    frame = generated(HOST).code
    assert frame.count("begin_loop<false>(") == frame.count(", 0, 0, (2 * sym_N), nullptr)") == 1
    assert frame.count("for (; DFC_NEXT_PASS(); ) {") == 1
    for host in ("for (sym_i = 0; (sym_i < sym_N)", "for (sym_j = 0;", "for (sym_l = 0;"):
        assert host in frame
    measured = lower(parse(HOST), GPU, profile=True)
    code = generate_program(measured.sdfg, PRELUDE, measured.work).code
    assert "DFC_NEXT_PASS" not in code
    assert "for (sym_k = 0;" in code


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_loops_of_the_host_and_of_graphs_follow_each_other() -> None:
    x = np.arange(20, dtype=np.float32).reshape(5, 4)
    found = emulated_model(HOST).run({"x": x})
    np.testing.assert_array_equal(found["y"], x[-1:])
    assert found["n"] == 5 * 3 + 10 * 3
