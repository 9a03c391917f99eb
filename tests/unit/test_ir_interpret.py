"""The interpreter: control flow, state, precision, and inputs that do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.errors import InputError
from dfcompiler.ir import Symbol, interpret, parse, verify
from tests.one_state import COPY, program_with
from tests.tolerances import assert_close

MACHINE = parse(
    """program machine() {
  input @x: f32[2]
  input @double: bool[]
  persist @calls: i64[]
  temp @stop: bool[]
  temp @sum: f32[2]
  output @y: f32[2]
  output @n: i64[]
  state start {
    @sum: f32[2] = constant {value = 0.0}
    %0: i64[] = constant {value = 1}
    @calls: i64[] = add @calls, %0
    @n: i64[] = copy @calls
    @stop: bool[] = constant {value = false}
  }
  loop steps for i in 1..100 until @stop {
    state step {
      %0: i64[] = dim {value = i}
      %1: f32[] = cast %0 {to = f32}
      %2: f32[2] = mul @x, %1
      @sum: f32[2] = add @sum, %2
      %3: f32[] = reduce_max @sum {axes = [0]}
      %4: f32[] = constant {value = 10.0}
      @stop: bool[] = greater_equal %3, %4
    }
  }
  branch choice if @double {
    state yes {
      @y: f32[2] = add @sum, @sum
    }
  } else {
    state no {
      @y: f32[2] = copy @sum
    }
  }
}"""
)


def test_loops_end_early_branches_choose_and_state_persists() -> None:
    verify(MACHINE)
    x = np.array([1.0, -1.0], np.float32)
    state: dict[str, np.ndarray] = {}
    first = interpret(MACHINE, {"x": x, "double": np.array(False)}, persistent=state)
    second = interpret(MACHINE, {"x": x, "double": np.array(True)}, persistent=state)
    # 1 + 2 + 3 + 4 = 10 ends the loop.
    np.testing.assert_array_equal(first["y"], [10, -10])
    np.testing.assert_array_equal(second["y"], [20, -20])
    assert (int(first["n"]), int(second["n"]), int(state["calls"])) == (1, 2, 2)


def test_everything_can_be_computed_in_float64() -> None:
    program = parse(
        """program p() {
  input @x: f32[1]
  output @y: f32[1]
  state main {
    %0: f32[] = constant {value = 1.0}
    %1: f32[1] = add @x, %0
    @y: f32[1] = sub %1, %0
  }
}"""
    )
    x = np.array([1e-10], np.float32)
    assert interpret(program, {"x": x})["y"] == 0
    wide = interpret(program, {"x": x}, precision=np.dtype(np.float64))["y"]
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, x, rtol=1e-6)


def test_an_observer_sees_every_result() -> None:
    seen: list[str] = []
    x = np.ones((2, 4), np.float32)
    program = program_with("%0: f32[S, 4] = exp @x", "@y: f32[S, 4] = neg %0")
    program = replace(program, data={"w": np.zeros((4, 4), np.float32)})
    interpret(
        program,
        {"x": x, "i": np.zeros(2, np.int64)},
        observe=lambda op, value: seen.append(f"{op.kind} {value.shape}"),
    )
    assert seen == ["exp (2, 4)", "neg (2, 4)"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": np.ones((2, 4), np.float32)}, "missing input i"),
        ({"x": np.ones((2, 4)), "i": np.zeros(2, np.int64)}, "x is float64; expected float32"),
        ({"x": np.ones((2, 5), np.float32), "i": np.zeros(2, np.int64)}, "x has shape [2, 5]"),
        ({"x": np.ones((2, 4), np.float32), "i": np.zeros(3, np.int64)}, "S = 3; elsewhere 2"),
        ({"x": np.ones(4, np.float32), "i": np.zeros(2, np.int64)}, "x has rank 1; expected 2"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, np.ndarray], sentence: str) -> None:
    program = replace(program_with(COPY), data={"w": np.zeros((4, 4), np.float32)})
    with pytest.raises(InputError) as caught:
        interpret(program, inputs)
    assert sentence in str(caught.value)


def test_a_symbol_above_its_maximum() -> None:
    program = replace(program_with(COPY), symbols=(Symbol("S", 3),))
    with pytest.raises(InputError, match="S = 4; the model takes 3 at most"):
        interpret(program, {"x": np.ones((4, 4), np.float32), "i": np.zeros(4, np.int64)})


def test_persistent_containers_start_from_their_data() -> None:
    program = parse(
        """program p() {
  persist @s: f32[2]
  output @y: f32[2]
  state main {
    @y: f32[2] = copy @s
    @s: f32[2] = neg @s
  }
}"""
    )
    start = np.array([1.0, 2.0], np.float32)
    filled = replace(program, data={"s": start})
    assert_close(interpret(filled, {})["y"], start)
    assert_close(interpret(program, {})["y"], np.zeros(2, np.float32))
    assert_close(start, np.array([1.0, 2.0], np.float32))
