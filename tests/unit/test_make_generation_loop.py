"""Generation as a loop of the program: a step that counts, and steps that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dfcompiler.errors import UsageError
from dfcompiler.ir import Program, interpret, parse, show, verify
from dfcompiler.pipeline import assemble
from passes.make_generation_loop import MakeGenerationLoop

# Predicts the sum of all tokens so far, modulo 7; `total` is what it has read.
STEP = """
program step(S <= 16) {
  input @ids: i64[1, S]
  output @logits: f32[1, 7]
  persist @total: i64[1]
  state main {
    %0: i64[1] = reduce_sum @ids {axes = [1]}
    @total: i64[1] = add @total, %0
    %1: i64[] = constant {value = 7}
    %2: i64[1] = mod @total, %1
    %3: i64[1, 1] = reshape %2
    %4: i64[7] = iota
    %5: bool[1, 7] = equal %4, %3
    @logits: f32[1, 7] = cast %5 {to = f32}
  }
}
"""


def looped(text: str = STEP, **options: Any) -> Program:
    return verify(MakeGenerationLoop(**options).run(parse(text), lambda op, reason: None))


def expected(ids: list[int], count: int) -> list[int]:
    read = list(ids)
    for _ in range(count):
        read.append(sum(read) % 7)
    return read[len(ids) :]


@pytest.mark.parametrize(("ids", "count"), [([1, 2, 3], 8), ([5], 1), ([4, 4], 1), ([6], 16)])
def test_tokens(ids: list[int], count: int) -> None:
    persistent: dict[str, np.ndarray] = {}
    outputs = interpret(
        looped(), {"ids": np.array([ids])}, symbols={"N": count}, persistent=persistent
    )
    assert outputs["tokens"].tolist() == [expected(ids, count)]
    assert outputs["logits"].argmax() == expected(ids, count)[-1]
    assert persistent["total"].tolist() == [sum(ids) + sum(expected(ids, count)[:-1])]


def test_program() -> None:
    text = show(looped())
    assert parse(text) == looped()
    assert "program step(S <= 16, N <= 16) {" in text
    assert "output @tokens: i64[1, N]" in text
    assert "loop generate for t in 1..N {" in text
    body = text[text.index("state decode") :]
    assert "S" not in body
    assert "@ids" not in body


def test_names_that_are_taken_are_avoided() -> None:
    text = STEP.replace("@total", "@token")
    program = looped(text, tokens="words", count="length")
    outputs = interpret(program, {"ids": np.array([[1, 2, 3]])}, symbols={"length": 4})
    assert outputs["words"].tolist() == [expected([1, 2, 3], 4)]


def test_it_runs_in_a_pipeline() -> None:
    result = assemble(["make-generation-loop"]).run(parse(STEP))
    assert result.program == looped()
    assert result.records[0].changed


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("@ids", "@words", "the program has no input @ids"),
        ("output @logits: f32[1, 7]", "output @logits: f32[7]", "expected [batch, V]"),
        ("@logits", "@scores", "the program has no output @logits"),
        ("persist @total", "temp @total", "keeps nothing between calls"),
        ("input @ids: i64[1, S]", "input @ids: i64[1, 4]", "expected i64[batch, S]"),
        ("persist", "input @mask: f32[1]\n  persist", "also takes @mask"),
        ("persist", "temp @all: f32[S]\n  persist", "@all is sized by S"),
        ("persist", "temp @tokens: f32[1]\n  persist", "must be new"),
        ("state main {", "state first {\n  }\n  state main {", "expected one state"),
    ],
)
def test_programs_that_are_no_step(old: str, new: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        MakeGenerationLoop().run(parse(STEP.replace(old, new)), lambda op, reason: None)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("ids", "count"), [([1, 2, 3], 12), ([5], 1), ([6], 9)])
@pytest.mark.parametrize("ends", [[6], [3, 5], [0], [100]])
def test_it_ends_at_end_tokens(ids: list[int], count: int, ends: list[int]) -> None:
    program = looped(end_tokens=ends)
    persistent: dict[str, np.ndarray] = {}
    outputs = interpret(
        program, {"ids": np.array([ids])}, symbols={"N": count}, persistent=persistent
    )
    all_tokens = expected(ids, count)
    length = next((i for i, token in enumerate(all_tokens) if token in ends), count)
    assert outputs["lengths"].tolist() == [length]
    made = all_tokens[: length + 1]
    assert outputs["tokens"].tolist() == [made + [ends[0]] * (count - len(made))]
    # The token that ended the call has not been read.
    assert persistent["total"].tolist() == [sum(ids) + sum(made[:-1])]


def test_rows_of_a_batch_end_on_their_own() -> None:
    text = STEP.replace("i64[1, S]", "i64[3, S]").replace("[1, 7]", "[3, 7]")
    text = text.replace("@total: i64[1]", "@total: i64[3]").replace("i64[1] =", "i64[3] =")
    text = text.replace("i64[1, 1]", "i64[3, 1]")
    prompts = [[1, 2, 3], [4, 4, 1], [6, 1, 1]]
    program = looped(text, end_tokens=[6])
    outputs = interpret(program, {"ids": np.array(prompts)}, symbols={"N": 8})
    for row, ids in enumerate(prompts):
        made = expected(ids, 8)
        length = made.index(6) if 6 in made else 8
        assert outputs["lengths"][row] == length
        assert outputs["tokens"][row].tolist() == made[:length] + [6] * (8 - length)
