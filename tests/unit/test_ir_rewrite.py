"""Building, rewriting and cleaning the operators of a state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dfcompiler.ir import Container, DType, Role, TensorType, show_op, verify
from dfcompiler.ir.dims import symbol
from dfcompiler.ir.rewrite import (
    Builder,
    StateRewriter,
    drop_unused_weights,
    live_ops,
    map_states,
    substitute_symbols,
    with_weights,
)
from tests.one_state import COPY, program_with

S = symbol("S")


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
    program = program_with(COPY)
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
    program = program_with("%0: f32[S, 4] = exp @x", COPY)
    (state,) = program.states()
    assert [op.result for op in live_ops(state.ops)] == ["@y"]
    assert not drop_unused_weights(program).weights
    extra = with_weights(program, {"v": np.ones(3, np.float32)})
    assert extra.container("@v") == Container(Role.WEIGHT, "v", TensorType(DType.F32, (3,)))


def test_symbols_are_replaced_in_types_attributes_and_regions() -> None:
    program = program_with("%0: i64[] = dim {value = S + 1}", COPY)
    (state,) = program.states()
    first, second = substitute_symbols(state.ops, {"S": 5})
    assert first.attr("value") == 6
    assert second.type.shape == (5, 4)
