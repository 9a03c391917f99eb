"""Programs whose course depends on data, called several times, and what has to come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from dfcompiler.ir import interpret, parse
from dfcompiler.lowering import Lowered
from tests.operator_cases import Runnable

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Call:
    """Inputs, outputs, and the sizes that no input tells."""

    inputs: Arrays
    expected: Arrays
    symbols: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A program and calls of it in order: what it keeps goes from one to the next."""

    text: str
    calls: tuple[Call, ...]


class Reporting(Runnable, Protocol):
    """What can be called, and says which operators may report an index."""

    lowered: Lowered


UNTIL = """
program until(N) {
  input @limit: i64[]
  output @count: i64[]
  output @flag: bool[]
  state start {
    @count: i64[] = constant {value = 0}
    @flag: bool[] = greater_equal @count, @limit
  }
  loop steps for t in 0..N until @flag {
    state step {
      %0: i64[] = constant {value = 1}
      @count: i64[] = add @count, %0
      @flag: bool[] = greater_equal @count, @limit
    }
  }
}
"""
CHOOSE = """
program choose(N) {
  input @c: bool[]
  input @d: bool[]
  input @x: f32[N]
  output @y: f32[N]
  branch outer if @c {
    state positive {
      @y: f32[N] = abs @x
    }
  } else {
    branch inner if @d {
      state negative {
        @y: f32[N] = neg @x
      }
    } else {
      state same {
        @y: f32[N] = copy @x
      }
    }
  }
}
"""
CACHE = """
program cache(S) {
  input @k: f32[2, S, 4]
  input @at: i64[S]
  persist @cache: f32[2, 6, 4]
  output @all: f32[2, 6, 4]
  state main {
    @cache: f32[2, 6, 4] = index_copy @cache, @at, @k {axis = 1}
    @all: f32[2, 6, 4] = copy @cache
  }
}
"""
LOOKUP = """
program lookup() {
  input @at: i64[4]
  input @x: f32[10, 4]
  output @y: f32[4, 4]
  state main {
    @y: f32[4, 4] = gather @x, @at {axis = 0} from "embeddings"
  }
}
"""
STORE = """
program store() {
  input @at: i64[4]
  input @x: f32[4, 4]
  persist @cache: f32[10, 4]
  output @y: f32[10, 4]
  state main {
    @cache: f32[10, 4] = index_copy @cache, @at, @x {axis = 0} from "cache"
    @y: f32[10, 4] = copy @cache
  }
}
"""


def _until(limit: int, most: int, count: int) -> Call:
    expected = {"count": np.array(count), "flag": np.array(count >= limit)}
    return Call({"limit": np.array(limit)}, expected, {"N": most})


def _choose(c: bool, d: bool, sign: np.ndarray) -> Call:
    x = np.array([1, -2, 3, 0], np.float32)
    return Call({"c": np.array(c), "d": np.array(d), "x": x}, {"y": sign * x})


def _cache() -> tuple[Call, ...]:
    kept = np.zeros((2, 6, 4), np.float32)
    calls = []
    for at in ([0, 1, 2], [3], [5, 4, 5], [-1, 1, 1]):
        k = np.random.default_rng(at[0] + 1).standard_normal((2, len(at), 4)).astype(np.float32)
        for number, position in enumerate(at):
            kept[:, position] = k[:, number]
        calls.append(Call({"k": k, "at": np.array(at)}, {"all": kept.copy()}))
    return tuple(calls)


CASES: Mapping[str, Case] = {
    "until": Case(UNTIL, (_until(4, 10, 4), _until(0, 10, 0), _until(50, 6, 6))),
    "choose": Case(
        CHOOSE,
        (
            _choose(True, False, np.array([1, -1, 1, 1], np.float32)),
            _choose(False, True, np.array(-1, np.float32)),
            _choose(False, False, np.array(1, np.float32)),
        ),
    ),
    "cache": Case(CACHE, _cache()),
}
"""The flag of `until` is read before each iteration; of equal indices the last one stays."""


def check(case: Case, compiled: Runnable) -> None:
    """Compares each call with what is expected, and the interpreter with it too."""
    program = parse(case.text)
    memory: dict[str, np.ndarray] = {}
    for call in case.calls:
        found = compiled.run(call.inputs, call.symbols)
        assert compiled.status[0] == 0
        reference = interpret(program, call.inputs, symbols=call.symbols, persistent=memory)
        for name, expected in call.expected.items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
            np.testing.assert_array_equal(reference[name], expected, err_msg=name)


def check_bad_lookup(compiled: Reporting) -> None:
    """`LOOKUP` reads row 0 for an index out of range, and says which one it was."""
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    found = compiled.run({"at": np.array([9, -10, 10, 2]), "x": x})["y"]
    np.testing.assert_array_equal(found, x[[9, 0, 0, 2]])
    assert _reported(compiled) == "gather (embeddings): index 10 is out of range for an axis of 10"


def check_bad_store(compiled: Reporting) -> None:
    """`STORE` writes no row but 0 for an index out of range, and says which one it was."""
    x = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    found = compiled.run({"at": np.array([9, -11, 5, 2]), "x": x})["y"]
    np.testing.assert_array_equal(found[[2, 5, 9]], x[[3, 2, 0]])
    np.testing.assert_array_equal(found[[1, 3, 4, 6, 7, 8]], 0)
    assert _reported(compiled) == "index_copy (cache): index -11 is out of range for an axis of 10"


def _reported(compiled: Reporting) -> str:
    site, value = compiled.status
    return compiled.lowered.sites[site - 1].format(value=value)
