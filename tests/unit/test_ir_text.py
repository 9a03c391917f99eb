"""The text form of programs: what is parsed prints as it was, what is not names its line."""

from __future__ import annotations

import pytest

from dfcompiler.errors import UsageError
from dfcompiler.ir import Attrs, DType, Op, Program, State, TensorType, parse, show, verify
from dfcompiler.ir.dims import symbol

EXAMPLE = """program attend(S <= 64) {
  input @q: f32[12, S, 64]
  input @flag: bool[]
  weight @kt: f32[12, 64, S; 2/48 0 1 2%48]
  weight @codes: f32[64, 64] as affine(4, 0, 32, f16, 1)
  weight @sparse: f32[64, 64] as bitmap(0.25)
  persist @cache: bf16[2, 12, S, 64]
  temp @stop: bool[]
  temp @sum: f32[]
  output @p: f32[12, S, S]
  output @"odd name, with \\"quotes\\"": f32[]
  state start {
    @sum: f32[] = constant {value = 0.0}
    @stop: bool[] = constant {value = false}
  }
  loop layers for l in 0..2*S until @stop {
    state scores {
      %0: f32[12, S, S] = matmul @q, @kt {tile = [64, 64, 32]} from "onnx:/h.0/attn, MatMul {x} do"
      %1: f32[12, S, S] = fused %0, @sum {kernel = "elementwise"} do
        %.0: f32[12, S, S] = add %0, @sum from "a\\"b"
        %.1: f32[12, S, S] = exp %.0
      end
      @p: f32[12, S, S] = softmax %1 {axis = 2}
      %2: f32[] = constant {value = -inf}
      %3: i64[] = dim {value = max((S // 2), l + 1)}
      %4: f32[] = cast %3 {to = f32}
      @sum: f32[] = max %2, %4
    }
  }
  branch side if @flag {
    state yes {
      @"odd name, with \\"quotes\\"": f32[] = copy @sum
    }
  } else {
    state no {
      @"odd name, with \\"quotes\\"": f32[] = neg @sum
    }
  }
}
"""


S, B = symbol("S"), symbol("B")


def test_the_example_parses_verifies_and_prints_as_it_was() -> None:
    program = parse(EXAMPLE)
    verify(program)
    assert show(program) == EXAMPLE
    assert parse(show(program)) == program


def test_comments_and_blank_lines_are_skipped() -> None:
    text = EXAMPLE.replace("  state start {", "\n  # a comment\n\n  state start {")
    assert parse(text) == parse(EXAMPLE)


@pytest.mark.parametrize(
    "value",
    [1, -3, 0.5, 1e-12, 3.4028234663852886e38, float("inf"), True, False, "text", 'a "b", {c}', "",
     (), (1, 2), ((1, 2.5), (3, 4.0)), ("a, b", "]"), DType.BF16, S + 1, S // 2, (S, 4, B * S)],
    ids=repr,
)  # fmt: skip
def test_attributes_keep_value_and_type(value: object) -> None:
    op = Op("%0", TensorType(DType.F32), "constant", (), Attrs({"value": value}))  # type: ignore[dict-item]
    program = Program("p", (), (), (State("main", (op,)),))
    (found,) = parse(show(program)).ops()
    assert found.attr("value") == value
    assert type(found.attr("value")) is type(value)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("", "the program's text ends"),
        ("program p() {", "ends where"),
        ("program p() {\n  input @x f32[4]\n}", "line 2"),
        ("program p() {\n  input @x: f32[4\n}", "line 2"),
        ("program p() {\n  input @x: q7[4]\n}", "line 2"),
        ("program p() {\n  state main {\n    %0 = add @x\n  }\n}", "line 3"),
        ("program p() {\n  state main {\n    %0: f32[] = constant {value = }\n  }\n}", "line 3"),
        ("program p() {\n  state main {\n    %0: f32[] = constant {value}\n  }\n}", "line 3"),
        ("program p() {\n  state main {\n    %0: f32[] = fused do\n  }\n}", "line"),
        ("program p() {\n}\nprogram q() {\n}", "line 3"),
    ],
)
def test_text_that_does_not_parse_names_the_line(broken: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(broken)
    assert expected in str(caught.value)
