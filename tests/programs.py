"""Seeded data for programs, and running them, for tests."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dfcompiler.ir import DType, Op, Program, Role, State, TensorType, interpret
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.rewrite import map_states
from tests.tolerances import assert_close


def random_array(name: str, tensor: TensorType, bindings: Mapping[str, int]) -> np.ndarray:
    """Values that depend on the name only; integers are small, so that they are valid indices."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shape = tuple(evaluate(dim, bindings) for dim in tensor.shape)
    if tensor.dtype is DType.BOOL:
        return rng.random(shape) < 0.7
    if tensor.dtype.is_integer:
        return rng.integers(0, 3, shape).astype(tensor.dtype.numpy)
    return rng.standard_normal(shape).astype(tensor.dtype.numpy)


def with_random_weights(program: Program, given: Mapping[str, np.ndarray] | None = None) -> Program:
    """The program with data for every weight: what is given, random values for the rest."""
    data = {
        c.name: (given or {}).get(c.name, random_array(c.name, c.type, {})) for c in program.weights
    }
    return replace(program, data={**program.data, **data})


def random_inputs(program: Program, bindings: Mapping[str, int]) -> dict[str, np.ndarray]:
    """One random array per input container."""
    return {c.name: random_array(c.name, c.type, bindings) for c in program.inputs}


def product_text(x: str, w: str, y: str) -> str:
    """The text of the program ``y = x·w`` for values of these types; capitals are its symbols."""
    symbols = ", ".join(sorted(set(re.findall(r"\b[A-Z]\b", f"{x} {w} {y}"))))
    return (
        f"program product({symbols}) {{\n  input @x: {x}\n  input @w: {w}\n  output @y: {y}\n"
        f"  state main {{\n    @y: {y} = matmul @x, @w\n  }}\n}}"
    )


def run_twice(
    program: Program, inputs: Mapping[str, np.ndarray], bindings: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Outputs of a first and a second call over the same persistent state, and that state."""
    persistent: dict[str, np.ndarray] = {}
    found: dict[str, np.ndarray] = {}
    for call in ("first", "second"):
        outputs = interpret(program, inputs, symbols=bindings, persistent=persistent)
        found |= {f"{name} of the {call} call": array for name, array in outputs.items()}
    kept = {c.name for stored in program.by_role(Role.PERSIST) for c in stored.pieces}
    return found | {name: array for name, array in persistent.items() if name in kept}


def assert_same_results(before: Program, after: Program, bindings: Mapping[str, int]) -> None:
    """Both programs give the same outputs and leave the same state on random inputs.

    Where only the second one computes in 16 bits, they are the same to that precision, and what it
    keeps may be stored in them.
    """
    narrow = narrow_type(after) if not narrow_type(before) else ""
    inputs = random_inputs(before, bindings)
    expected, actual = (run_twice(p, inputs, bindings) for p in (before, after))
    assert actual.keys() == expected.keys()
    kept = {c.name for stored in before.by_role(Role.PERSIST) for c in stored.pieces}
    for name, array in expected.items():
        found, precision = actual[name], narrow if array.dtype == np.float32 else ""
        if precision and name in kept and found.dtype.name == narrow:
            found = found.astype(np.float32)
        assert_close(found, array, f"{name} at {dict(bindings)}", precision)


def narrow_type(program: Program) -> str:
    """The type of 16 bits that any operator gives, as numpy calls it; empty for none."""
    found = {inner.type.dtype for op in program.ops() for inner in (op, *op.region)}
    narrow = [dtype for dtype in (DType.BF16, DType.F16) if dtype in found]
    return narrow[0].numpy.name if narrow else ""


def renumbered(program: Program) -> Program:
    """The program with the values of each state called ``%0``, ``%1``, … in order."""

    def state(one: State) -> State:
        names: dict[str, str] = {}
        ops = tuple(_renamed(op, names) for op in one.ops)
        return replace(one, ops=ops)

    return map_states(program, state)


def _renamed(op: Op, names: dict[str, str]) -> Op:
    if op.result.startswith("%"):
        names[op.result] = f"%{len(names)}"
    return _with_names(op, names)


def _with_names(op: Op, names: dict[str, str]) -> Op:
    inputs = tuple(names.get(name, name) for name in op.inputs)
    local = names | {inner.result: f"%.{i}" for i, inner in enumerate(op.region)}
    region = tuple(_with_names(inner, local) for inner in op.region)
    return replace(op, result=names.get(op.result, op.result), inputs=inputs, region=region)
