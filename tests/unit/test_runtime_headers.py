"""Which headers of DaCe's runtime a program includes, and ours in their stead."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dfcompiler.codegen.library import KERNELS, prelude_text
from dfcompiler.codegen.runtime_headers import RUNTIME, runtime_headers
from dfcompiler.target import parse_target

OURS = '"program.h"'


@pytest.mark.parametrize(
    ("code", "headers"),
    [
        ("for (i = 0; i < int_ceil(sym_S, 8); i += Min(2, sym_S)) { x = float(y); }", (OURS,)),
        ("DACE_EXPORTED void f(); dfc::exp(x); std::min(a, b); a.size(); p->begin();", (OURS,)),
        ("dace::bfloat16 *a; dace::float16 b;", ("<dace/types.h>", OURS)),
        ("dace::bfloat16 a = dace::math::exp(x);", ("<dace/dace.h>",)),
        ("__DACE_UNROLL for (;;) {}", ("<dace/dace.h>",)),
        ("x = py_mod(sym_S - 7, 4);", ("<dace/dace.h>",)),
        ("x = int_ceil(sym_S, 2) + sgn(sym_S);", ("<dace/dace.h>",)),
    ],
)
def test_headers_of_a_program(code: str, headers: tuple[str, ...]) -> None:
    assert runtime_headers(code) == headers


def test_ours_computes_what_that_of_dace_does(tmp_path: Path) -> None:
    values = ["int_ceil(s + 5, 8)", "int_floor(s - 1, 3)", "Min(s, 9, s - 2)", "Max(1, s - 40)"]
    printed = "\n".join(f'    std::printf("%lld ", (long long)({value}));' for value in values)
    body = f"for (int64_t s = 3; s < 100; ++s) {{\n{printed}\n  }}"
    found = []
    for header in (OURS, "<dace/dace.h>"):
        text = f"#include <cstdio>\n#include {header}\nint main() {{\n  {body}\n}}\n"
        (tmp_path / "a.cpp").write_text(text)
        command = ["g++", "-std=c++20", "-w", f"-I{RUNTIME}", f"-I{KERNELS}", "a.cpp"]
        subprocess.run(command, cwd=tmp_path, check=True)
        run = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True)
        found.append(run.stdout.split())
    assert found[0] == found[1]
    assert len(found[0]) == 97 * len(values)


def test_the_prelude_names_a_header_once() -> None:
    lines = prelude_text((OURS, '"cpu/threads.h"'), parse_target("cpu")).splitlines()
    assert lines.count('#include "cpu/threads.h"') == 1
    assert lines[3] == f"#include {OURS}"
