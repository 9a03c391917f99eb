"""One rotation for the heads of queries and keys."""

from __future__ import annotations

import pytest

from dfcompiler.ir import Program, parse, verify
from dfcompiler.pipeline import assemble
from tests.programs import assert_same_results

SIZES = {"B": 2, "S": 5}
HEADS = """program heads(B, S) {
  input @x: f32[B, S, 40]
  input @c: f32[1, S, 4]
  input @s: f32[1, S, 4]
  output @q: f32[B, 3, S, 8]
  output @k: f32[B, 1, S, 8]
  output @v: f32[B, S, 8]
  state main {
    %p: f32[B, S, 40] = exp @x
    %0: f32[B, S, QWIDTH] = slice %p {starts = [0, 0, QSTART]}
    %1: f32[B, S, 3, 8] = reshape %0
    %2: f32[B, 3, S, 8] = transpose %1 {perm = [0, 2, 1, 3]}
    %3: f32[B, S, 8] = slice %p {starts = [0, 0, KSTART]}
    %4: f32[B, S, 1, 8] = reshape %3
    %5: f32[B, 1, S, 8] = transpose %4 {perm = [0, 2, 1, 3]}
    %6: f32[B, 3, S, 8] = rotary %2, @c, @s
    %7: f32[B, 1, S, 8] = rotary %5, @c, KSIN
    %8: f32[B, S, 8] = slice %p {starts = [0, 0, 32]}
    @q: f32[B, 3, S, 8] = copy %6
    @k: f32[B, 1, S, 8] = neg %7
    @v: f32[B, S, 8] = copy %8
  }
}"""
FLAT = """program flat(S) {
  input @x: f32[S, 32]
  input @c: f32[S, 1, 4]
  output @q: f32[S, 3, 8]
  output @k: f32[S, 1, 8]
  state main {
    %p: f32[S, 32] = exp @x
    %0: f32[S, 24] = slice %p {starts = [0, 0]}
    %1: f32[S, 3, 8] = reshape %0
    %2: f32[S, 8] = slice %p {starts = [0, 24]}
    %3: f32[S, 1, 8] = reshape %2
    %4: f32[S, 3, 8] = rotary %1, @c, @c {interleaved = true}
    %5: f32[S, 1, 8] = rotary %3, @c, @c {interleaved = true}
    @q: f32[S, 3, 8] = neg %4
    @k: f32[S, 1, 8] = neg %5
  }
}"""


def heads(query: int = 0, key: int = 24, sine: str = "@s") -> Program:
    text = HEADS.replace("QWIDTH", "24").replace("QSTART", str(query))
    return verify(parse(text.replace("KSTART", str(key)).replace("KSIN", sine)))


def merged(program: Program) -> tuple[Program, list[str]]:
    result = assemble(["merge-rotary"]).run(program)
    return result.program, [site.reason for site in result.records[0].declined]


def rotations(program: Program) -> list[tuple[object, ...]]:
    return [op.type.shape for op in program.ops() if op.kind == "rotary"]


@pytest.mark.parametrize(("query", "key"), [(0, 24), (8, 0)], ids=["q k", "k q"])
def test_neighbouring_heads_are_rotated_at_once(query: int, key: int) -> None:
    before = heads(query, key)
    after, _ = merged(before)
    assert [shape[1] for shape in rotations(after)] == [4]
    assert_same_results(before, after, SIZES)


def test_heads_behind_tokens() -> None:
    before = verify(parse(FLAT))
    after, _ = merged(before)
    assert [shape[1] for shape in rotations(after)] == [4]
    assert_same_results(before, after, SIZES)


def test_other_angles_are_other_rotations() -> None:
    before = heads(sine="@c")
    after, reasons = merged(before)
    assert after is before
    assert reasons == []


def test_heads_apart_are_declined() -> None:
    after, reasons = merged(heads(key=32))
    assert len(rotations(after)) == 2
    assert reasons == ["its heads are no neighbours of others: between 24 and 32 of %p"]


def test_a_result_that_is_a_container_is_declined() -> None:
    text = HEADS.replace("QWIDTH", "24").replace("QSTART", "0").replace("KSTART", "24")
    text = text.replace("KSIN", "@s").replace("%6:", "@q:")
    text = text.replace("@q: f32[B, 3, S, 8] = copy %6\n", "")
    after, reasons = merged(verify(parse(text)))
    assert len(rotations(after)) == 2
    assert reasons == ["the result of one of the rotations is a container"]
