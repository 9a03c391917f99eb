"""Recover rotary position embeddings from slices, products and sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.analysis.pairs import HalfTables, Pairs, joined_halves, pairs_of
from dfcompiler.ir import Op, Program
from dfcompiler.ir.draft import Draft, draft_states
from dfcompiler.ir.match import MismatchError, scaled
from dfcompiler.ir.rewrite import StateRewriter, with_weights
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class RecoverRotary(Pass):
    """Recovers the rotation of pairs of elements of the last axis.

    ::

        %first  = slice @x [.., 0:D/2]
        %second = slice @x [.., D/2:D]
        %minus  = neg %second
        %turned = concat %minus, %first          ──▶      %y = rotary @x, %c, %s
        %a      = mul @x, %cos                             (cos = concat %c, %c; sin alike)
        %b      = mul %turned, %sin
        %y      = add %a, %b

        concat (x₁·c − x₂·s), (x₂·c + x₁·s)      ──▶      rotary x, c, s

    Pairs are halves, or neighbours (``interleaved``) when slices have step 2 and the result is
    stacked. Tables twice as wide as the pairs are rebuilt at half the width, back to where they
    were doubled; a stored table is cut after comparing its values. A rotation of the first r
    elements alone stays slice, rotary, concat.

    Skips tables whose halves are not provably equal, and results paired otherwise than arguments.
    """

    name: ClassVar[str] = "recover-rotary"
    claims: ClassVar[tuple[str, ...]] = ("flops <=", "moved_bytes <=")

    def run(self, program: Program, decline: Decline) -> Program:
        tables = HalfTables(program)

        def rewrite(draft: Draft, op: Op) -> None:
            match op.kind:
                case "add":
                    _rewrite_turned(draft, op, tables)
                case "concat" | "reshape":
                    _rewrite_split(draft, op)

        rewritten = draft_states(program, rewrite, decline)
        return rewritten if rewritten is program else with_weights(rewritten, tables.new_weights)


def _commit(draft: Draft, last: Op, x: str, cos: str, sin: str, interleaved: bool) -> None:
    if not draft.type_of(x).same(last.type):
        raise MismatchError("the tables broadcast the rotated value to another shape")
    attrs = {"interleaved": True} if interleaved else {}
    draft.op("rotary", [x, cos, sin], attrs, source=last.source)
    if not draft.commit(last):
        raise MismatchError("it reads a container that the program writes")


def _rewrite_turned(draft: Draft, last: Op, tables: HalfTables) -> None:
    """``x · cos + turned(x) · sin``."""
    state = draft.state
    for kept, turned in _orders(last.inputs):
        for rotated, sin in _products(state, turned):
            pairs = _turned(state, rotated)
            if pairs is None:
                continue
            for x, cos in _products(state, kept):
                if not pairs.are_all_of(state, x):
                    continue
                half_cos = tables.half(draft, cos, pairs.interleaved)
                half_sin = tables.half(draft, sin, pairs.interleaved)
                _commit(draft, last, x, half_cos, half_sin, pairs.interleaved)
                return
            raise MismatchError("the turned value is not added to the value itself times cos")


def _turned(state: StateRewriter, name: str) -> Pairs | None:
    """The pairs that `name` holds as (−second, first)."""
    joined = joined_halves(state, state.producer(name))
    negated = scaled(state, joined.first) if joined is not None else None
    if joined is None or negated is None or negated[1] != -1.0:
        return None
    return _pairs(state, joined.second, negated[0], joined.interleaved)


def _rewrite_split(draft: Draft, last: Op) -> None:
    """The pairs ``(x₁·cos − x₂·sin, x₂·cos + x₁·sin)`` joined again."""
    state = draft.state
    joined = joined_halves(state, last)
    if joined is None:
        return
    difference, total = state.producer(joined.first), state.producer(joined.second)
    if difference is None or total is None or (difference.kind, total.kind) != ("sub", "add"):
        return
    for x1, cos in _products(state, difference.inputs[0]):
        for x2, sin in _products(state, difference.inputs[1]):
            if not any(
                (x2, cos) in _products(state, a) and (x1, sin) in _products(state, b)
                for a, b in _orders(total.inputs)
            ):
                continue
            pairs = _pairs(state, x1, x2, joined.interleaved)
            if pairs is not None:
                _commit(draft, last, _whole(draft, pairs), cos, sin, pairs.interleaved)
                return


def _pairs(state: StateRewriter, first: str, second: str, interleaved: bool) -> Pairs | None:
    pairs = pairs_of(state, first, second)
    if pairs is not None and pairs.interleaved != interleaved:
        raise MismatchError("the result pairs halves and the argument neighbours, or the reverse")
    return pairs


def _whole(draft: Draft, pairs: Pairs) -> str:
    """The elements of the pairs in the order of the source."""
    if pairs.are_all_of(draft.state, pairs.value):
        return pairs.value
    found = draft.type_of(pairs.value)
    starts = (*(0 for _ in found.shape[:-1]), pairs.start)
    part = found.with_shape((*found.shape[:-1], pairs.width))
    return draft.op("slice", [pairs.value], {"starts": starts}, type=part)


def _orders(pair: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    yield pair[0], pair[1]
    yield pair[1], pair[0]


def _products(state: StateRewriter, name: str) -> Iterator[tuple[str, str]]:
    op = state.producer(name)
    if op is not None and op.kind == "mul":
        yield from _orders(op.inputs)
