"""What the verifier refuses, and what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.errors import VerifyError
from dfcompiler.ir import verify
from tests.one_state import COPY, program_with


@pytest.mark.parametrize(
    ("ops", "sentence"),
    [
        (("@y: f32[S, 4] = frobnicate @x",), "there is no operator frobnicate"),
        (("@y: f32[S, 4] = exp %9",), "%9 is read but not defined before"),
        (("@y: f32[S, 4] = exp @nowhere",), "@nowhere is read but not defined"),
        (("@nowhere: f32[S, 4] = exp @x",), "@nowhere is written but not declared"),
        (("@x: f32[S, 4] = exp @x",), "@x is a input and is written"),
        (("@w: f32[4, 4] = exp @w", COPY), "is written"),
        (("@y: f32[S, 5] = exp @x",), "is declared f32[S, 5], but exp gives f32[S, 4]"),
        (("@y: f64[S, 4] = exp @x",), "is declared f64[S, 4]"),
        (
            ("%0: f32[4, S] = transpose @x {perm = [1, 0]}", "@y: f32[4, S] = exp %0"),
            "written with",
        ),
        (("%0: f32[S, 4] = exp @x", "%0: f32[S, 4] = neg @x", COPY), "%0 is assigned twice"),
        (("@y: f32[S, 4] = add @x",), "add takes 2 to 2 inputs, found 1"),
        (("%0: f32[S, 4] = softmax @x", COPY), "softmax lacks the attribute axis"),
        (("%0: f32[S, 4] = softmax @x {axis = 3}", COPY), "axis 3 is out of range"),
        (("%0: f32[T] = constant {value = 1.0}", COPY), "undeclared symbol T"),
        (("%0: f32[S, 4] = matmul @x, @x", COPY), "inner extents 4 and S differ"),
        (("%0: f32[S, 4] = add @x, @i", COPY), "different element types"),
        (("%0: i64[S] = exp @i", COPY), "exp takes floating-point values"),
        (("%0: f32[4] = reshape @x", COPY), "elements"),
        (("%0: f32[S, 4] = expand @i", COPY), "do not broadcast"),
        (("%0: f32[4, 4] = concat @w, @x {axis = 1}", COPY), "differ outside axis 1"),
        (("%0: f32[4] = concat @w, @i {axis = 0}", COPY), "different ranks"),
        (("%0: f32[4, 4] = transpose @w {perm = [0, 0]}", COPY), "no permutation"),
        (("%0: f32[4, 5] = slice @w {starts = [0, 0]}", COPY), "do not lie in 0..4"),
        (("%0: f32[S, 4] = gather @w, @x {axis = 0}", COPY), "the index is f32"),
        (("%0: f32[S, 4] = where @i, @x, @x", COPY), "the condition is i64"),
        (("%0: f32[S, 4] = layer_norm @x, @i {epsilon = 0.1}", COPY), "scale and bias"),
        (
            (
                "%0: f32[] = reduce_sum @w {axes = [0, 1]}",
                "%1: f32[] = layer_norm %0 {epsilon = 0.1}",
            ),
            "layer_norm takes at least one axis",
        ),
        (("%0: f32[S, 4] = fused @x", COPY), "at least one operator in its region"),
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
                COPY,
                more="  state second {\n    @y: f32[S, 4] = neg %0\n  }",
            )
        )


def test_names_of_blocks_and_containers_are_unique() -> None:
    with pytest.raises(VerifyError, match="two blocks are called main"):
        verify(program_with(COPY, more="  state main {\n  }"))
    with pytest.raises(VerifyError, match="declares a container name twice"):
        verify(program_with(COPY, containers="  temp @x: f32[4]"))


def test_conditions_are_bool_scalars() -> None:
    with pytest.raises(VerifyError, match="no container of type bool"):
        verify(program_with(COPY, more="  branch b if @x {\n    state s {\n    }\n  }"))


def test_data_has_the_type_of_its_container() -> None:
    program = replace(program_with(COPY), data={"w": np.zeros((4, 5), np.float32)})
    with pytest.raises(VerifyError, match=r"the data of @w is float32\[4, 5\]"):
        verify(program)


def test_only_values_have_gaps_between_their_rows() -> None:
    with pytest.raises(VerifyError, match="@gaps has gaps between its rows"):
        verify(program_with(COPY, containers="  temp @gaps: f32[S, 4; 0 1+16]"))
    verify(program_with("%0: f32[S, 4; 0 1+16] = exp @x", "@y: f32[S, 4] = copy %0"))
