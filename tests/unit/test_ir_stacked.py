"""Persistent state that is stacked from parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.errors import VerifyError
from dfcompiler.ir import Role, interpret, parse, show, verify

STACKED = """program p(S) {
  input @x: f32[S]
  input @at: i64[S]
  persist @"k.*": f32[2, 4] of @k.0, @"k 1"
  output @y: f32[4]
  loop layers for layer in 0..2 {
    state main {
      %0: f32[1, 4] = slice @"k.*" {starts = [layer, 0]}
      @y: f32[4] = reshape %0
      @"k.*": f32[2, 4] = index_copy @"k.*", @at, @x {axis = 0, part = layer}
    }
  }
}
"""


def test_parts_of_stacked_state_keep_their_names() -> None:
    program = verify(parse(STACKED))
    assert show(program) == STACKED
    (kept,) = program.by_role(Role.PERSIST)
    assert [(c.name, str(c.type)) for c in kept.pieces] == [("k.0", "f32[4]"), ("k 1", "f32[4]")]
    inputs = {"x": np.array([7.0], np.float32), "at": np.array([2])}
    persistent = {"k 1": np.array([1, 2, 3, 4], np.float32)}
    assert interpret(program, inputs, persistent=persistent)["y"].tolist() == [1, 2, 3, 4]
    assert {name: part.tolist() for name, part in persistent.items()} == {
        "k.0": [0, 0, 7, 0],
        "k 1": [1, 2, 7, 4],
    }
    start = np.arange(8, dtype=np.float32).reshape(2, 4)
    filled = replace(program, data={"k.*": start})
    assert interpret(filled, inputs)["y"].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('persist @"k.*"', 'temp @"k.*"', "expected persistent state of 2 parts"),
        (', @"k 1"', "", "expected persistent state of 1 parts"),
        ('of @k.0, @"k 1"', "of @k.0, @k.0", "something else is called @k.0"),
        ("of @k.0", "of @x", "something else is called @x"),
    ],
)
def test_parts_that_are_none(old: str, new: str, sentence: str) -> None:
    with pytest.raises(VerifyError, match=sentence):
        verify(parse(STACKED.replace(old, new)))
