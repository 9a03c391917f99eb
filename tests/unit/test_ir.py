"""Text form, verifier, dimensions, types, rewriting and interpreter of the IR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.errors import InputError, UsageError, VerifyError
from dfcompiler.ir import (
    Affine,
    Attrs,
    Bitmap,
    Container,
    DType,
    Layout,
    Op,
    PhysicalAxis,
    Program,
    Role,
    State,
    Symbol,
    TensorType,
    interpret,
    parse,
    show,
    show_op,
    verify,
)
from dfcompiler.ir.dims import (
    ceil_div,
    equal,
    evaluate,
    floor_div,
    free_symbols,
    parse_dim,
    product,
    same_shape,
    show_dim,
    substitute,
    symbol,
)
from dfcompiler.ir.rewrite import (
    Builder,
    StateRewriter,
    drop_unused_weights,
    live_ops,
    map_states,
    substitute_symbols,
    with_weights,
)
from dfcompiler.ir.text import parse_type
from tests.tolerances import assert_close

S, B = symbol("S"), symbol("B")

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


# -------------------------------------------------------------------------------------------- text


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


# -------------------------------------------------------------------------------------- dimensions


@pytest.mark.parametrize(
    "dim",
    [7, S, 2 * S + 1, B * S, S**2, floor_div(S, 2), ceil_div(S, 8), parse_dim("S % 4"),
     parse_dim("max(S, B)"), parse_dim("min(2*S, B + 3)"), floor_div(B * S + 1, 3)],
    ids=str,
)  # fmt: skip
def test_a_dimension_reads_as_it_prints(dim: object) -> None:
    assert parse_dim(show_dim(dim)) == dim  # type: ignore[arg-type]
    names = {"S": 37, "B": 5}
    functions = {"max": max, "min": min, "ceildiv": lambda a, b: -(-a // b)}
    python = eval(show_dim(dim), {**functions, **names})  # type: ignore[arg-type]
    assert python == evaluate(dim, names)  # type: ignore[arg-type]


def test_dimension_arithmetic() -> None:
    assert equal((B + 1) * S, B * S + S)
    assert not equal(B * S, B + S)
    assert not equal(floor_div(S, 2), ceil_div(S, 2))
    assert floor_div(4 * S, 2) == 2 * S
    assert product((2, S, 3)) == 6 * S
    assert product(()) == 1
    assert same_shape((2 * S,), (S + S,))
    assert not same_shape((S,), (S, 1))
    assert free_symbols(B * S, 4) == {"B", "S"}
    assert substitute(2 * S + B, {"S": 3, "B": S}) == S + 6
    assert floor_div(-7, 2) == -4


@pytest.mark.parametrize("text", ["", "S +", "f(S)", "S.x", "'a'", "1.5"])
def test_text_that_is_no_dimension(text: str) -> None:
    with pytest.raises(ValueError, match="is not a dimension"):
        parse_dim(text)


# ------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("tensor", "stored"),
    [
        ("f32[3, 5]", 60),
        ("bool[7]", 7),
        ("bf16[]", 2),
        ("f32[10, 100; 1/48 0 1%48]", 10 * 144 * 4),
        ("f32[10, 100; 1 0]", 4000),
        ("f32[64, 128] as affine(4, 0, 32, f16, 1)", (64 * 128 * 4 + 256 * (16 + 4)) // 8),
        ("f32[64, 128] as affine(8, 1, 0, f32, 0)", 64 * 128 + 128 * 4),
        ("f32[64, 64] as bitmap(0.25)", 64 * 64 // 8 + 64 * 64 * 4 // 4),
    ],
)
def test_stored_bytes(tensor: str, stored: int) -> None:
    found = parse_type(tensor)
    assert str(found) == tensor
    assert found.stored_bytes == stored


def test_layouts() -> None:
    panels = Layout((PhysicalAxis(1, 48), PhysicalAxis(0), PhysicalAxis(1, 48, True)))
    assert str(panels) == "1/48 0 1%48"
    assert panels.is_tiled
    assert panels.physical_shape((S, 100)) == (3, S, 48)
    assert Layout.permuted(0, 1, 2) == Layout()
    assert Layout.permuted(1, 0).physical_shape((3, 4)) == (4, 3)
    packed = TensorType(DType.F32, (2, 3), Layout.permuted(1, 0))
    assert packed.with_shape((2, 3)).layout.is_row_major
    assert not packed.same(TensorType(DType.F32, (2, 3)))
    assert TensorType(DType.F32, (2 * S,)).same(TensorType(DType.F32, (S + S,)))


@pytest.mark.parametrize("dtype", list(DType))
def test_element_types_have_the_bytes_of_their_numpy_dtype(dtype: DType) -> None:
    assert np.zeros(3, dtype.numpy).nbytes == 3 * dtype.bytes
    assert DType.of(dtype.numpy) is dtype


def test_encodings_are_part_of_a_type() -> None:
    a = TensorType(DType.F32, (8, 8), encoding=Affine(4, 0, 8))
    assert not a.same(TensorType(DType.F32, (8, 8)))
    assert not a.same(replace(a, encoding=Bitmap(0.5)))


def test_attributes_are_sorted_hashable_and_immutable() -> None:
    attrs = Attrs({"b": 1, "a": (1, S)})
    assert list(attrs) == ["a", "b"]
    assert hash(attrs) == hash(Attrs({"a": (1, S), "b": 1}))
    with pytest.raises(TypeError):
        attrs["a"] = 2  # type: ignore[index]


# ---------------------------------------------------------------------------------------- verifier


def program_with(*ops: str, more: str = "", containers: str = "") -> Program:
    body = "\n".join(f"    {op}" for op in ops)
    return parse(
        f"""program p(S) {{
  input @x: f32[S, 4]
  input @i: i64[S]
  weight @w: f32[4, 4]
  temp @t: f32[S, 4]
  output @y: f32[S, 4]
{containers}
  state main {{
{body}
  }}
{more}
}}"""
    )


WRITE = "@y: f32[S, 4] = copy @x"


@pytest.mark.parametrize(
    ("ops", "sentence"),
    [
        (("@y: f32[S, 4] = frobnicate @x",), "there is no operator frobnicate"),
        (("@y: f32[S, 4] = exp %9",), "%9 is read but not defined before"),
        (("@y: f32[S, 4] = exp @nowhere",), "@nowhere is read but not defined"),
        (("@nowhere: f32[S, 4] = exp @x",), "@nowhere is written but not declared"),
        (("@x: f32[S, 4] = exp @x",), "@x is a input and is written"),
        (("@w: f32[4, 4] = exp @w", WRITE), "is written"),
        (("@y: f32[S, 5] = exp @x",), "is declared f32[S, 5], but exp gives f32[S, 4]"),
        (("@y: f64[S, 4] = exp @x",), "is declared f64[S, 4]"),
        (
            ("%0: f32[4, S] = transpose @x {perm = [1, 0]}", "@y: f32[4, S] = exp %0"),
            "written with",
        ),
        (("%0: f32[S, 4] = exp @x", "%0: f32[S, 4] = neg @x", WRITE), "%0 is assigned twice"),
        (("@y: f32[S, 4] = add @x",), "add takes 2 to 2 inputs, found 1"),
        (("%0: f32[S, 4] = softmax @x", WRITE), "softmax lacks the attribute axis"),
        (("%0: f32[S, 4] = softmax @x {axis = 3}", WRITE), "axis 3 is out of range"),
        (("%0: f32[T] = constant {value = 1.0}", WRITE), "undeclared symbol T"),
        (("%0: f32[S, 4] = matmul @x, @x", WRITE), "inner extents 4 and S differ"),
        (("%0: f32[S, 4] = add @x, @i", WRITE), "different element types"),
        (("%0: i64[S] = exp @i", WRITE), "exp takes floating-point values"),
        (("%0: f32[4] = reshape @x", WRITE), "elements"),
        (("%0: f32[S, 4] = expand @i", WRITE), "do not broadcast"),
        (("%0: f32[4, 4] = concat @w, @x {axis = 1}", WRITE), "differ outside axis 1"),
        (("%0: f32[4] = concat @w, @i {axis = 0}", WRITE), "different ranks"),
        (("%0: f32[4, 4] = transpose @w {perm = [0, 0]}", WRITE), "no permutation"),
        (("%0: f32[4, 5] = slice @w {starts = [0, 0]}", WRITE), "do not lie in 0..4"),
        (("%0: f32[S, 4] = gather @w, @x {axis = 0}", WRITE), "the index is f32"),
        (("%0: f32[S, 4] = where @i, @x, @x", WRITE), "the condition is i64"),
        (("%0: f32[S, 4] = layer_norm @x, @i {epsilon = 0.1}", WRITE), "scale and bias"),
        (
            (
                "%0: f32[] = reduce_sum @w {axes = [0, 1]}",
                "%1: f32[] = layer_norm %0 {epsilon = 0.1}",
            ),
            "layer_norm takes at least one axis",
        ),
        (("%0: f32[S, 4] = fused @x", WRITE), "at least one operator in its region"),
        ((), "output @y is never written"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_verifier_says_what_is_wrong(ops: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify(program_with(*ops))
    assert sentence in str(caught.value)


def test_an_error_shows_operator_and_origin() -> None:
    with pytest.raises(VerifyError) as caught:
        verify(program_with('@y: f32[S, 4] = softmax @x {axis = 3} from "onnx:/Softmax"'))
    text = str(caught.value)
    assert "state main, op 0, from onnx:/Softmax" in text
    assert "  > @y: f32[S, 4] = softmax @x {axis = 3}" in text


def test_values_are_local_to_their_state() -> None:
    with pytest.raises(VerifyError, match="%0 is read but not defined"):
        verify(
            program_with(
                "%0: f32[S, 4] = exp @x",
                WRITE,
                more="  state second {\n    @y: f32[S, 4] = neg %0\n  }",
            )
        )


def test_names_of_blocks_and_containers_are_unique() -> None:
    with pytest.raises(VerifyError, match="two blocks are called main"):
        verify(program_with(WRITE, more="  state main {\n  }"))
    with pytest.raises(VerifyError, match="declares a container name twice"):
        verify(program_with(WRITE, containers="  temp @x: f32[4]"))


def test_conditions_are_bool_scalars() -> None:
    with pytest.raises(VerifyError, match="no container of type bool"):
        verify(program_with(WRITE, more="  branch b if @x {\n    state s {\n    }\n  }"))


def test_data_has_the_type_of_its_container() -> None:
    program = replace(program_with(WRITE), data={"w": np.zeros((4, 5), np.float32)})
    with pytest.raises(VerifyError, match=r"the data of @w is float32\[4, 5\]"):
        verify(program)


# --------------------------------------------------------------------------------------- rewriting


def test_a_builder_infers_types_and_numbers_values() -> None:
    build = Builder({"@x": TensorType(DType.F32, (S, 4))})
    first = build.op("exp", ("@x",))
    second = build.op("reduce_sum", (first,), {"axes": (1,)})
    assert (first, second) == ("%0", "%1")
    assert build.types[second] == TensorType(DType.F32, (S,))
    with pytest.raises(ValueError, match="different element types"):
        build.op("add", (first, build.constant(1, TensorType(DType.I64))))


def test_a_rewriter_replaces_forwards_and_drops() -> None:
    program = program_with(
        "%0: f32[S, 4] = exp @x",
        "%1: f32[S, 4] = neg %0",
        "%2: f32[S, 4] = neg %1",
        "%3: f32[S, 4] = abs %2",
        "@y: f32[S, 4] = add %3, %0",
    )
    (state,) = program.states()
    rewriter = StateRewriter(program, state)
    again = rewriter.producer("%2")
    absolute = rewriter.producer("%3")
    assert again is not None
    assert absolute is not None
    assert [user.result for user in rewriter.users("%0")] == ["%1", "@y"]
    assert rewriter.only_user("%1") is again
    rewriter.forward(again, "%0")
    fresh = rewriter.fresh()
    rewriter.replace(
        absolute, [replace(absolute, result=fresh, kind="relu"), replace(absolute, inputs=(fresh,))]
    )
    found = rewriter.finish()
    assert [show_op(op).split(" = ")[1] for op in found.ops] == [
        "exp @x",
        "relu %0",
        "abs %4",
        "add %3, %0",
    ]
    verify(replace(program, body=(found,)))


def test_a_rewriter_without_changes_gives_the_same_state() -> None:
    program = program_with(WRITE)
    (state,) = program.states()
    assert StateRewriter(program, state).finish() is state
    assert map_states(program, lambda one: one) is program


def test_scalars_are_seen_through_broadcasts_and_casts() -> None:
    program = program_with(
        "%0: i64[] = constant {value = 3}",
        "%1: f32[] = cast %0 {to = f32}",
        "%2: f32[S, 4] = expand %1",
        "%3: f32[2] = constant {value = [1.0, 2.0]}",
        "@y: f32[S, 4] = mul @x, %2",
    )
    rewriter = StateRewriter(program, next(program.states()))
    assert rewriter.scalar("%2") == 3.0
    assert rewriter.scalar("%3") is None
    assert rewriter.scalar("@x") is None


def test_dead_operators_and_weights() -> None:
    program = program_with("%0: f32[S, 4] = exp @x", WRITE)
    (state,) = program.states()
    assert [op.result for op in live_ops(state.ops)] == ["@y"]
    assert not drop_unused_weights(program).weights
    extra = with_weights(program, {"v": np.ones(3, np.float32)})
    assert extra.container("@v") == Container(Role.WEIGHT, "v", TensorType(DType.F32, (3,)))


def test_symbols_are_replaced_in_types_attributes_and_regions() -> None:
    program = program_with("%0: i64[] = dim {value = S + 1}", WRITE)
    (state,) = program.states()
    first, second = substitute_symbols(state.ops, {"S": 5})
    assert first.attr("value") == 6
    assert second.type.shape == (5, 4)


# ------------------------------------------------------------------------------------- interpreter

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
    program = replace(program_with(WRITE), data={"w": np.zeros((4, 4), np.float32)})
    with pytest.raises(InputError) as caught:
        interpret(program, inputs)
    assert sentence in str(caught.value)


def test_a_symbol_above_its_maximum() -> None:
    program = replace(program_with(WRITE), symbols=(Symbol("S", 3),))
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
