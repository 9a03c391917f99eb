"""Products by cuBLASLt: what the library is asked for, told by a stand-in for it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from tests.cuda_emulation import Library, build, toolkit
from tests.tolerances import assert_close

Array = np.ndarray

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")

STAND_IN = Path(__file__).parents[1] / "cuda_emulation" / "cublaslt.cpp"
CASES = {
    # name: storage, activation, residual
    "plain": ("float", "none", "none"),
    "gelu_tanh": ("float", "gelu_tanh", "none"),
    "relu": ("__half", "relu", "none"),
    "added": ("__nv_bfloat16", "none", "add"),
    "gelu": ("float", "gelu", "none"),
    "silu_mul": ("float", "silu", "mul"),
}
DTYPES = {"float": np.float32, "__half": np.float16, "__nv_bfloat16": ml_dtypes.bfloat16}
REFERENCES = {
    "plain": lambda x, r: x,
    "gelu_tanh": lambda x, r: x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)),
    "relu": lambda x, r: np.maximum(x, 0),
    "added": lambda x, r: x + r,
    "gelu": lambda x, r: x * special.ndtr(x),
    "silu_mul": lambda x, r: x * special.expit(x) * r,
}
SOURCE = """
extern "C" int product_{name}(const {T}* a, const {T}* b, {T}* c, const {T}* bias,
                              const {T}* residual, const long* s, char* why) {{
  clear_failure();
  const cudaError_t code = gemm_lt<{T}, Activation::{activation}, Residual::{residual}>(
      nullptr, {{s[0], s[1], s[2], s[3], a, s[4], s[5], s[6], b, s[7], s[8], s[9], c, s[10], s[11],
                bias, residual, s[12], s[13]}});
  std::snprintf(why, 256, "%s", failure().detail);
  return code;
}}
"""


@cache
def products() -> Library:
    head = '#include "cuda/gemm_lt.cuh"\nusing namespace dfc::cuda;\n'
    return build(
        head
        + "".join(
            SOURCE.format(name=name, T=storage, activation=activation, residual=residual)
            for name, (storage, activation, residual) in CASES.items()
        )
    )


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("cublaslt") / "libcublasLt.so"
    places = ["-isystem", str(toolkit())]
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", *places, str(STAND_IN), "-o"]
    subprocess.run([*command, str(library)], check=True)
    os.environ["DFC_CUBLASLT"] = str(library)
    return ctypes.CDLL(str(library))


def run(
    name: str, extents: tuple[int, int, int, int], a: str = "C", b: str = "C", bias: bool = True
) -> str:
    """Compares one product with float64; gives the sentence about a failure instead, if any."""
    batch, rows, columns, depth = extents
    library, kind = products(), DTYPES[CASES[name][0]]
    random = np.random.default_rng(rows + columns)
    left = random.standard_normal((batch, rows, depth)).astype(kind)
    right = (random.standard_normal((batch, depth, columns)) / np.sqrt(max(1, depth))).astype(kind)
    shift = random.standard_normal(columns).astype(kind)
    other = random.standard_normal((batch, rows, columns)).astype(kind)
    places = [
        library.copy(x if order == "C" else np.ascontiguousarray(x.swapaxes(1, 2)))
        for x, order in ((left, a), (right, b))
    ]
    a_strides = [depth, 1] if a == "C" else [1, rows]
    b_strides = [columns, 1] if b == "C" else [1, depth]
    c = library.array((batch, rows, columns + 2), kind)
    c[...] = np.array(7, kind)
    sizes = [*extents, *a_strides, rows * depth, *b_strides, columns * depth]
    sizes += [columns + 2, rows * (columns + 2), columns, rows * columns]
    s, why = library.copy(np.array(sizes, np.int64)), library.copy(np.zeros(256, np.uint8))
    vector = library.copy(shift) if bias else None
    library.call(f"product_{name}", *places, c, vector, library.copy(other), s, why)
    sentence = why.tobytes().split(b"\0")[0].decode()
    if not sentence:
        wide = [x.astype(np.float64) for x in (left, right, shift, other)]
        expected = REFERENCES[name](wide[0] @ wide[1] + bias * wide[2], wide[3])
        assert_close(c[..., :columns], expected.astype(kind))
        assert (c[..., columns:] == np.array(7, kind)).all(), "columns beside c are written"
    return sentence


@pytest.mark.parametrize("name", CASES)
def test_epilogues(name: str, stand_in: ctypes.CDLL) -> None:
    assert run(name, (2, 5, 9, 17)) == ""
    assert run(name, (1, 3, 4, 8), bias=False) == ""


@pytest.mark.parametrize("a", ["C", "F"])
@pytest.mark.parametrize("b", ["C", "F"])
def test_orders_of_operands(a: str, b: str, stand_in: ctypes.CDLL) -> None:
    assert run("plain", (3, 5, 6, 7), a=a, b=b) == ""


def test_a_plan_is_made_once(stand_in: ctypes.CDLL) -> None:
    run("plain", (1, 4, 4, 4))
    before = stand_in.stand_in_heuristics()
    run("plain", (1, 4, 4, 4))
    assert stand_in.stand_in_heuristics() == before
    run("plain", (1, 4, 4, 5))
    assert stand_in.stand_in_heuristics() == before + 1
    assert stand_in.stand_in_created() == 1


def test_a_product_without_depth_is_refused(stand_in: ctypes.CDLL) -> None:
    assert "at least one step of k" in run("plain", (1, 2, 2, 0))


def test_an_absent_library_is_named() -> None:
    code = "import test_cuda_gemm_lt as t; print(t.run('plain', (1, 2, 2, 2)))"
    root = Path(__file__).parents[2]
    places = {"PYTHONPATH": f"{root}{os.pathsep}{Path(__file__).parent}"}
    absent = os.environ | places | {"DFC_CUBLASLT": "/nowhere/libcublasLt.so"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=absent, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cuBLASLt is not found as libcublasLt.so.13")
