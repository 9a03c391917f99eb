"""The loops of element-wise maps are vectorized by GCC as DaCe writes them."""

from __future__ import annotations

import re

from compile_sdfg import Compiled

OPS = (
    *(f"f32[A, N] = {kind} @x" for kind in ("exp", "tanh", "erf", "gelu", "silu", "sqrt", "round")),
    *(f"f32[A, N] = {kind} @x, @row" for kind in ("add", "mul", "div", "max")),
    "bool[A, N] = less @x, @row",
    "bool[A, N] = not @m",
    "f32[A, N] = where @m, @x, @row",
    "f32[A, N] = cast @i {to = f32}",
    "i64[A, N] = add @i, @i",
    "f32[A, N] = dequantize @q, @row",
)


def test_innermost_loops_are_vectorized() -> None:
    inputs = {
        "x": "f32[A, N]",
        "row": "f32[N]",
        "m": "bool[A, N]",
        "i": "i64[A, N]",
        "q": "i8[A, N]",
    }
    lines = [f"input @{name}: {tensor}" for name, tensor in inputs.items()]
    lines += [f"output @o{i}: {op.split(' = ')[0]}" for i, op in enumerate(OPS)]
    body = [f"@o{i}: {op}" for i, op in enumerate(OPS)]
    text = "\n".join([*lines, "state main {", *body, "}"])
    compiled = Compiled(
        f"program loops(A, N) {{\n{text}\n}}\n", "-fopt-info-vec-optimized", optimize="-O3"
    )
    pattern = r"program\.cpp:(\d+):\d+: optimized: loop vectorized"
    vectorized = {int(line) for line in re.findall(pattern, compiled.messages)}
    source = enumerate(compiled.source.splitlines(), 1)
    inner = [number for number, line in source if "_i1 < sym_N" in line]
    assert len(inner) == len(OPS)
    missed = [op for op, number in zip(OPS, inner, strict=True) if number not in vectorized]
    assert not missed
