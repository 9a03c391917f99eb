"""Every row of the operator table in small programs, and what numpy makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dfcompiler.ir import TensorType, interpret, parse, verify
from dfcompiler.ir.dims import evaluate

SIZES = ((1, 1), (1, 7), (3, 31), (2, 257))
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """Operators that are compiled into one library: one output each."""

    name: str
    inputs: dict[str, str]
    ops: tuple[str, ...]  # "TYPE = KIND INPUTS {ATTRS}"
    positive: bool = False

    def program(self):
        inputs = [f"input @{name}: {tensor}" for name, tensor in self.inputs.items()]
        outputs, body = [], []
        for i, op in enumerate(self.ops):
            tensor = op.split(" = ", 1)[0]
            outputs.append(f"output @o{i}: {tensor}")
            body.append(f"@o{i}: {op}")
        lines = [*inputs, *outputs, "state main {", *body, "}"]
        return verify(parse(f"program {self.name}(A, N) {{\n" + "\n".join(lines) + "\n}\n"))


def unary(dtype: str, *kinds: str) -> tuple[str, ...]:
    return tuple(f"{dtype}[A, N] = {kind} @x" for kind in kinds)


def binary(result: str, *kinds: str) -> tuple[str, ...]:
    pairs = itertools.cycle(("@x, @y", "@x, @row", "@col, @row", "@x, @one"))
    return tuple(f"{result}[A, N] = {kind} {next(pairs)}" for kind in kinds)


def operands(dtype: str) -> dict[str, str]:
    return {
        "x": f"{dtype}[A, N]",
        "y": f"{dtype}[A, N]",
        "row": f"{dtype}[N]",
        "col": f"{dtype}[A, 1]",
        "one": f"{dtype}[]",
    }


ROUNDING = ("floor", "ceil", "round", "neg", "abs", "sign", "relu", "copy")
FLOAT = ("exp", "sin", "cos", "tanh", "erf", "sigmoid", "silu", "gelu", *ROUNDING)
ARITHMETIC = ("add", "sub", "mul", "div", "mod", "min", "max")
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def float_cases(dtype: str) -> list[Case]:
    return [
        Case(
            f"float_{dtype}",
            operands(dtype),
            (
                *unary(dtype, *FLOAT),
                f'{dtype}[A, N] = gelu @x {{approximate = "tanh"}}',
                *binary(dtype, *ARITHMETIC),
                *binary("bool", *COMPARISONS),
                "bool[A, N] = isnan @x",
                "bool[A, N] = isinf @x",
                "i64[A, N] = cast @x {to = i64}",
                "i8[A, N] = cast @x {to = i8}",
                "f64[A, N] = cast @x {to = f64}",
                "bool[A, N] = cast @x {to = bool}",
            ),
        ),
        Case(
            f"positive_{dtype}",
            operands(dtype),
            (
                *unary(dtype, "log", "sqrt", "rsqrt", "reciprocal"),
                f"{dtype}[A, N] = pow @x, @y",
                f"{dtype}[A, N] = pow @x, @one",
            ),
            positive=True,
        ),
        Case(
            f"rows_{dtype}",
            {
                "x": f"{dtype}[A, N]",
                "g": f"{dtype}[N]",
                "b": f"{dtype}[N]",
                "t": f"{dtype}[A, N, 5]",
            },
            (
                f"{dtype}[A, N] = softmax @x {{axis = 1}}",
                f"{dtype}[A, N] = softmax @x {{axis = 0}}",
                f"{dtype}[A, N, 5] = softmax @t {{axis = -1}}",
                f"{dtype}[A, N] = layer_norm @x, @g, @b {{epsilon = 1e-05}}",
                f"{dtype}[A, N] = layer_norm @x, @g {{epsilon = 1e-05}}",
                f"{dtype}[A, N, 5] = layer_norm @t {{epsilon = 1e-05}}",
                f"{dtype}[A, N] = rms_norm @x, @g {{epsilon = 1e-06}}",
                f"{dtype}[A, N] = rms_norm @x {{epsilon = 1e-06}}",
            ),
        ),
        Case(
            f"rotary_{dtype}",
            {
                "x": f"{dtype}[A, 3, N, 34]",
                "c": f"{dtype}[N, 17]",
                "s": f"{dtype}[A, 1, N, 17]",
            },
            (
                f"{dtype}[A, 3, N, 34] = rotary @x, @c, @s",
                f"{dtype}[A, 3, N, 34] = rotary @x, @c, @s {{interleaved = true}}",
            ),
        ),
    ]


def integer_case(dtype: str) -> Case:
    return Case(
        f"integer_{dtype}",
        operands(dtype),
        (
            *unary(dtype, "neg", "abs", "sign", "relu"),
            *binary(dtype, *ARITHMETIC),
            *binary("bool", *COMPARISONS),
            "f32[A, N] = cast @x {to = f32}",
            "i8[A, N] = cast @x {to = i8}",
            "i64[A, N] = cast @x {to = i64}",
            f"{dtype}[A, N] = copy @x",
        ),
    )


def reduction_case(dtype: str) -> Case:
    kinds = ["reduce_sum", "reduce_max", "reduce_min", "reduce_mean"]
    ops = [f"{dtype}[A, N] = reduce_prod @t {{axes = [2]}}"]
    for kind in kinds:
        ops += [
            f"{dtype}[A, 5] = {kind} @t {{axes = [1]}}",
            f"{dtype}[A, N] = {kind} @t {{axes = [2]}}",
            f"{dtype}[1, N, 1] = {kind} @t {{axes = [0, -1], keepdims = true}}",
            f"{dtype}[N, 5] = {kind} @t {{axes = [0]}}",
            f"{dtype}[] = {kind} @t {{axes = [0, 1, 2]}}",
            f"{dtype}[A] = {kind} @x {{axes = [-1]}}",
            f"{dtype}[N] = {kind} @x {{axes = [0]}}",
        ]
    ops += [
        "i64[A] = argmax @x {axis = 1}",
        "i64[1, N] = argmax @x {axis = 0, keepdims = true}",
        "i64[A, 5] = argmax @t {axis = 1}",
        f"{dtype}[A, N] = cumsum @x {{axis = 1}}",
        f"{dtype}[A, N, 5] = cumsum @t {{axis = -2}}",
    ]
    return Case(f"reduce_{dtype}", {"x": f"{dtype}[A, N]", "t": f"{dtype}[A, N, 5]"}, tuple(ops))


def movement_case(dtype: str) -> Case:
    return Case(
        f"movement_{dtype}",
        {"x": f"{dtype}[A, N]", "t": f"{dtype}[A, N, 5]", "u": f"{dtype}[3, A, N, 20]"},
        (
            f"{dtype}[A, N] = copy @x",
            f"{dtype}[N*A] = reshape @x",
            f"{dtype}[A, 1, 5*N] = reshape @t",
            f"{dtype}[4, A, N] = expand @x",
            f"{dtype}[N, A] = transpose @x {{perm = [1, 0]}}",
            f"{dtype}[N, A, 5] = transpose @t {{perm = [1, 0, 2]}}",
            f"{dtype}[5, A, N] = transpose @t {{perm = [2, 0, 1]}}",
            f"{dtype}[3, N, 20, A] = transpose @u {{perm = [0, 2, 3, 1]}}",
            f"{dtype}[20, 3, A, N] = transpose @u {{perm = [3, 0, 1, 2]}}",
            f"{dtype}[A, 20, N, 3] = transpose @u {{perm = [1, 3, 2, 0]}}",
            f"{dtype}[A, 1, 2] = slice @t {{starts = [0, N - 1, 1], steps = [1, 1, 2]}}",
            f"{dtype}[A, N, 5] = slice @t {{starts = [0, N - 1, 4], steps = [1, -1, -1]}}",
            f"{dtype}[2*A, N] = concat @x, @x {{axis = 0}}",
            f"{dtype}[A, 3*N] = concat @x, @x, @x {{axis = -1}}",
            f"{dtype}[A + 1, N + 5] = pad @x {{before = [1, 2], after = [0, 3], value = 1}}",
            f"{dtype}[A, N] = constant {{value = 1}}",
            f"{dtype}[2, 2] = constant {{value = [[1, 0], [0, 1]]}}",
        ),
    )


CASES = [
    *float_cases("f32"),
    *float_cases("f64"),
    integer_case("i64"),
    integer_case("i32"),
    integer_case("i8"),
    reduction_case("f32"),
    reduction_case("i64"),
    reduction_case("i32"),
    movement_case("f32"),
    movement_case("i64"),
    movement_case("bool"),
    Case(
        "logic",
        {**operands("bool"), "v": "f32[A, N]", "w": "f32[N]", "i": "i64[A, 1]", "k": "i64[]"},
        (
            *binary("bool", "and", "or", "xor"),
            "bool[A, N] = not @x",
            "f32[A, N] = cast @x {to = f32}",
            "f32[A, N] = where @x, @v, @w",
            "i64[A, N] = where @row, @i, @k",
            "bool[A, N] = add @x, @y",
            "bool[A] = reduce_max @x {axes = [1]}",
            "bool[N] = reduce_min @x {axes = [0]}",
            "bool[A] = reduce_sum @x {axes = [1]}",
            "i64[A] = argmax @x {axis = 1}",
        ),
    ),
    Case(
        "codes",
        {"q": "i8[A, N]", "s": "f32[N]", "z": "i8[A, 1]", "u": "u8[A, N]"},
        (
            "f32[A, N] = dequantize @q, @s",
            "f32[A, N] = dequantize @q, @s, @z",
            "f32[A, N] = dequantize @u, @s",
            "u8[A, N] = add @u, @u",
            "i64[N] = iota",
            "i32[N] = iota {start = A, step = -2}",
            "i64[] = dim {value = 3*N + A // 2}",
        ),
    ),
    Case(
        "indexing",
        {
            "x": "f32[A, N, 5]",
            "i": "i64[4]",
            "j": "i32[2, 3]",
            "a": "i64[A, N, 2]",
            "v": "f32[A, 4, 5]",
            "w": "f32[A, N, 4]",
        },
        (
            "f32[A, 4, 5] = gather @x, @i {axis = 1}",
            "f32[A, N, 2, 3] = gather @x, @j {axis = -1}",
            "f32[A, 2, 3, 5] = gather @x, @j {axis = 1}",
            "f32[A, N, 2] = take_along @x, @a {axis = 2}",
            "f32[A, N, 5] = index_copy @x, @i, @v {axis = 1}",
            "f32[A, N, 5] = index_copy @x, @i, @w {axis = 2}",
        ),
    ),
]


def sample(case: Case, tensor: TensorType, bindings: dict[str, int]) -> np.ndarray:
    shape = tuple(evaluate(dim, bindings) for dim in tensor.shape)
    dtype = tensor.dtype.numpy
    if dtype.kind == "b":
        return RNG.random(shape) < 0.5
    if dtype.kind in "iu":
        # As indices they are good for the axes of N and of 5 elements.
        bound = min(bindings["N"], 5) if case.name == "indexing" else 6
        return RNG.integers(-bound if dtype.kind == "i" else 0, bound, shape).astype(dtype)
    if case.positive:
        return RNG.uniform(0.1, 3, shape).astype(dtype)
    return (RNG.standard_normal(shape) * 2).astype(dtype)


SUMS = {"reduce_sum", "reduce_mean", "cumsum"}


class Runnable(Protocol):
    """A program that can be called; `status` begins with zero where no index was bad."""

    status: np.ndarray

    def run(
        self, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int] | None = None
    ) -> dict[str, np.ndarray]: ...


def check(case: Case, compiled: Runnable) -> None:
    """Compares what the compiled program of a case gives with its numpy reference."""
    program = case.program()
    for a, n in SIZES:
        bindings = {"A": a, "N": n}
        inputs = {c.name: sample(case, c.type, bindings) for c in program.inputs}
        expected = interpret(program, inputs, symbols=bindings, precision=np.dtype(np.float64))
        found = compiled.run(inputs, bindings)
        assert compiled.status[0] == 0
        for output, op in zip(program.outputs, case.ops, strict=True):
            want, got = expected[output.name], found[output.name]
            tolerance = 1e-12 if "f64" in op else 2e-6
            scale = 1.0
            if want.dtype.kind == "f":
                terms = expected
                if SUMS & set(op.split()):
                    # A sum's error is bounded by the sum of its terms' magnitudes (Higham, 4.2).
                    magnitudes = {name: np.abs(array) for name, array in inputs.items()}
                    terms = interpret(
                        program, magnitudes, symbols=bindings, precision=np.dtype(np.float64)
                    )
                scale = max(1.0, float(np.abs(terms[output.name]).max(initial=0)))
            np.testing.assert_allclose(
                got, want, rtol=tolerance, atol=tolerance * scale, err_msg=f"{op} at {a}, {n}"
            )
