"""The C interface: expressions, header, and a C program that uses it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.codegen.c_api import header
from dfcompiler.codegen.c_expression import c_expression
from dfcompiler.codegen.interface import c_identifier, interface_of, unique_identifiers
from dfcompiler.errors import InternalError, UnsupportedError
from dfcompiler.ir import parse
from dfcompiler.ir.dims import evaluate, parse_dim
from dfcompiler.lowering import lower
from dfcompiler.target import parse_target
from tests.artifacts import build_ledger, build_text, expected_ledger, lowered_ledger

EXPRESSIONS = [
    *("7", "S", "2*S + 1", "S - N - 3", "S*N*64", "S**2 + N**3", "-S + 5"),
    *("S // 2", "(S + 1) // 2", "(S*N + 3) // (N + 1)", "ceildiv(S, 8)", "ceildiv(S*N, N + 2)"),
    *("S % 4", "(S + N) % 7", "max(S, N, 3)", "min(2*S, N*N)", "max(64*S*N, 256*ceildiv(S, 16))"),
    *("(S*S + S) / 2", "S * (S // 3)", "((S + 2) // 3 + 4) // 5"),
]
FUNCTIONS = """
#include <stdio.h>
typedef long long wide;
static wide floor_div(wide a, wide b) { wide q = a / b; return q - (a % b && (a < 0) != (b < 0)); }
static wide ceil_div(wide a, wide b) { return -floor_div(-a, b); }
static wide modulo(wide a, wide b) { return a - b * floor_div(a, b); }
static wide greater(wide a, wide b) { return a > b ? a : b; }
static wide smaller(wide a, wide b) { return a < b ? a : b; }
"""


def test_expressions_agree_with_the_ir(tmp_path: Path) -> None:
    dims = [parse_dim(text) for text in EXPRESSIONS]
    samples = list(itertools.product([1, 2, 5, 16, 33], [1, 3, 8]))
    rows = "".join(
        f'printf("%lld\\n", {c_expression(dim, {"S": "s", "N": "n"})});\n' for dim in dims
    )
    calls = "".join(f"all({s}, {n});\n" for s, n in samples)
    source = tmp_path / "expressions.cpp"
    source.write_text(
        f"{FUNCTIONS}\nstatic void all(wide s, wide n) {{\n{rows}}}\nint main() {{\n{calls}}}\n"
    )
    program = tmp_path / "expressions"
    subprocess.run(["g++", str(source), "-o", str(program)], check=True)
    found = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    expected = [evaluate(dim, {"S": s, "N": n}) for s, n in samples for dim in dims]
    assert [int(line) for line in found.split()] == expected


def test_an_expression_without_exact_form_is_refused() -> None:
    with pytest.raises(ValueError, match="no exact form"):
        c_expression(parse_dim("S") ** parse_dim("N"), {"S": "s", "N": "n"})


@pytest.mark.parametrize(
    ("name", "word"),
    [("model", "model"), ("a.b/c", "a_b_c"), ("7b", "m_7b"), ("été", "t"), ("", "model")],
)
def test_prefix(name: str, word: str) -> None:
    assert c_identifier(name) == word


def test_identifiers_stay_apart() -> None:
    assert unique_identifiers(["a.b", "a_b", "a_b_1"]) == ["a_b", "a_b_1", "a_b_1_1"]


HOSTILE = """
program "try/*catch*/ me"(S) {
  input @"a\\"b*/": f32[S]
  input @"a_b": f32[S]
  output @"tab\\tout\\\\": f32[S]
  state main {
    @"tab\\tout\\\\": f32[S] = add @"a\\"b*/", @"a_b"
  }
}
"""


@pytest.mark.parametrize(
    ("compiler", "standard"),
    [("gcc", "c99"), ("gcc", "c17"), ("g++", "c++11"), ("g++", "c++20")],
)
@pytest.mark.parametrize("text", ["", HOSTILE], ids=["ledger", "hostile names"])
def test_header_is_plain_c(compiler: str, standard: str, text: str, tmp_path: Path) -> None:
    lowered = lower(parse(text), parse_target("cpu")) if text else lowered_ledger()
    (tmp_path / "model.h").write_text(header(interface_of(lowered), parse_target("cpu")))
    (tmp_path / "use.c").write_text(
        '#include "model.h"\n#include "model.h"\nint main(void){return 0;}\n'
    )
    flags = ["-x", "c" if compiler == "gcc" else "c++", f"-std={standard}"]
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    done = subprocess.run(
        [compiler, *flags, *strict, "-c", "use.c", "-o", "use.o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_hostile_names_compile_and_run(tmp_path: Path) -> None:
    from dfcompiler.runtime import load

    model = load(build_text(HOSTILE, tmp_path / "m.dfc"))
    ones = np.ones(3, np.float32)
    assert model.run({'a"b*/': ones, "a_b": ones})["tab\tout\\"].tolist() == [2, 2, 2]


def test_persistent_state_of_a_size_per_call_is_unsupported() -> None:
    text = """
program p(S) {
  input @x: f32[S]
  persist @c: f32[S]
  output @y: f32[S]
  state main {
    @y: f32[S] = add @x, @c
  }
}
"""
    with pytest.raises(UnsupportedError, match=r"@c is f32\[S\]"):
        interface_of(lower(parse(text), parse_target("cpu")))


def test_a_slot_that_is_too_small_is_noticed() -> None:
    text = """
program p(S) {
  input @x: f32[S]
  temp @slot0: u8[2*S]
  output @y: f32[S]
  state main {
    %0: f32[S] = add @x, @x {slot = "slot0"}
    @y: f32[S] = mul %0, %0
  }
}
"""
    with pytest.raises(InternalError, match=r"slot0 has 2\*S bytes; a value in it needs 4\*S"):
        interface_of(lower(parse(text), parse_target("cpu")))


C_PROGRAM = r"""
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "model.h"

static ledger_model *model;

static void show(const char *what, int status) {
  printf("%s: %d %s\n", what, status, status ? ledger_last_error() : "");
}

int main(int argc, char **argv) {
  int64_t ids[3] = {1, 9, 4};
  float scale = 0.5f, rows[12], sums[8];
  int64_t count;
  unsigned char flags[3];
  ledger_tensor in[ledger_INPUTS] = {{0}}, out[ledger_OUTPUTS] = {{0}};
  int64_t sizes[ledger_SYMBOLS] = {0};
  int i, j;

  printf("%d\n", ledger_create("/nowhere/weights.bin") == NULL);
  printf("%s\n", ledger_last_error());
  model = ledger_create(argc > 1 ? argv[1] : NULL);
  if (!model) {
    printf("%s\n", ledger_last_error());
    return 1;
  }
  in[ledger_INPUT_ids].data = ids;
  in[ledger_INPUT_ids].bytes = sizeof ids;
  in[ledger_INPUT_ids].dtype = ledger_I64;
  in[ledger_INPUT_ids].rank = 1;
  in[ledger_INPUT_ids].shape[0] = 3;
  in[ledger_INPUT_scale].data = &scale;
  in[ledger_INPUT_scale].bytes = sizeof scale;
  in[ledger_INPUT_scale].dtype = ledger_F32;

  show("no N", ledger_output_shapes(model, in, 2, NULL, out, 4));
  sizes[ledger_SYMBOL_N] = 2;
  show("shapes", ledger_output_shapes(model, in, 2, sizes, out, 4));
  for (i = 0; i < 4; ++i) {
    printf("%d %d %lld:", out[i].dtype, out[i].rank, (long long)out[i].bytes);
    for (j = 0; j < out[i].rank; ++j) printf(" %lld", (long long)out[i].shape[j]);
    printf("\n");
  }
  show("no memory", ledger_run(model, in, 2, sizes, out, 4));
  out[ledger_OUTPUT_rows].data = rows;
  out[ledger_OUTPUT_sums].data = sums;
  out[ledger_OUTPUT_count].data = &count;
  out[ledger_OUTPUT_flags].data = flags;
  show("run", ledger_run(model, in, 2, sizes, out, 4));
  show("N from the outputs", ledger_run(model, in, 2, NULL, out, 4));
  for (i = 0; i < 12; ++i) printf("%.9g ", rows[i]);
  printf("\n");
  for (i = 0; i < 8; ++i) printf("%.9g ", sums[i]);
  printf("\n%lld %d%d%d\n", (long long)count, flags[0], flags[1], flags[2]);

  out[0].bytes = 47;
  show("little", ledger_run(model, in, 2, sizes, out, 4));
  out[0].bytes = sizeof rows;
  out[0].data = (char *)ids + 4;
  show("overlap", ledger_run(model, in, 2, sizes, out, 4));
  out[0].data = (char *)rows + 1;
  show("unaligned", ledger_run(model, in, 2, sizes, out, 4));
  out[0].data = rows;
  in[0].dtype = 77;
  show("dtype", ledger_run(model, in, 2, sizes, out, 4));
  in[0].dtype = ledger_I64;
  in[0].rank = 2;
  show("rank", ledger_run(model, in, 2, sizes, out, 4));
  in[0].rank = 1;
  show("count", ledger_run(model, in, 1, sizes, out, 4));
  show("null", ledger_run(model, NULL, 2, sizes, out, 4));
  show("null model", ledger_run(NULL, in, 2, sizes, out, 4));
  sizes[ledger_SYMBOL_N] = 9;
  show("maximum", ledger_run(model, in, 2, sizes, out, 4));
  sizes[ledger_SYMBOL_N] = -4;
  show("negative", ledger_run(model, in, 2, sizes, out, 4));
  sizes[ledger_SYMBOL_N] = 2;
  sizes[ledger_SYMBOL_S] = 4;
  show("contradiction", ledger_run(model, in, 2, sizes, out, 4));
  sizes[ledger_SYMBOL_S] = 0;
  ids[1] = 10;
  show("index", ledger_run(model, in, 2, sizes, out, 4));
  ids[1] = 9;
  show("threads", ledger_set_threads(model, -1));
  show("reset", ledger_reset(model));
  show("after reset", ledger_run(model, in, 2, sizes, out, 4));
  printf("%lld %.9g\n", (long long)count, sums[0]);
  ledger_destroy(model);
  ledger_destroy(NULL);
  return 0;
}
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_ledger(tmp_path_factory.mktemp("c") / "ledger.dfc")


def test_a_c_program_gets_the_numbers(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "use.c").write_text(C_PROGRAM)
    program = tmp_path / "use"
    command = ["gcc", "-std=c99", "-Wall", "-Werror", "-pedantic", f"-I{artifact}", "use.c"]
    linked = [str(artifact / "model.so"), f"-Wl,-rpath,{artifact}", "-o", str(program)]
    subprocess.run([*command, *linked], cwd=tmp_path, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = iter(done.stdout.splitlines())

    assert next(lines) == "1"
    assert "cannot be opened: No such file" in next(lines)
    assert next(lines) == "no N: 4 no input fixes the size N; pass its value with the call"
    assert next(lines) == "shapes: 0 "
    assert [next(lines) for _ in range(4)] == ["1 2 48: 3 4", "1 2 32: 2 4", "4 0 8:", "12 1 3: 3"]
    assert next(lines) == "no memory: 1 rows has no data"
    assert next(lines) == "run: 0 "
    assert next(lines) == "N from the outputs: 0 "
    ids = np.array([1, 9, 4])
    rows, first = expected_ledger(ids, 0.5, 2, np.array([1.0, 2, 3, 4]))
    sums = expected_ledger(ids, 0.5, 2, first[-1])[1]
    np.testing.assert_allclose(np.fromstring(next(lines), sep=" "), rows.ravel(), rtol=1e-5)
    np.testing.assert_allclose(np.fromstring(next(lines), sep=" "), sums.ravel(), rtol=1e-5)
    assert next(lines) == "2 010"
    assert list(lines)[:-1] == [
        "little: 1 rows has 47 bytes; expected 48",
        "overlap: 1 the memory of rows and ids overlaps",
        "unaligned: 1 rows is not aligned to its elements",
        "dtype: 2 ids has dtype unknown; expected int64",
        "rank: 3 ids has rank 2; expected 1",
        "count: 1 found 1 inputs and 4 outputs; expected 2 and 4",
        "null: 1 the array of inputs is null",
        "null model: 1 the model is null",
        "maximum: 4 the call has N = 9; the model takes 8 at most",
        "negative: 4 the call has N = -4; expected 1 to 8",
        "contradiction: 3 the call has S = 4; elsewhere it is 3",
        "index: 5 gather (embedding): index 10 is out of range for an axis of 10",
        "threads: 1 found -1 threads; expected 0 or more",
        "reset: 0 ",
        "after reset: 0 ",
    ]
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "1"
    np.testing.assert_allclose(float(last[1]), first[0, 0], rtol=1e-5)
