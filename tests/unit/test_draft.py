"""Drafts: what a site that does not match has drafted does not reach the next one."""

from __future__ import annotations

from dfcompiler.ir import Op, parse
from dfcompiler.ir.draft import Draft, draft_states
from dfcompiler.ir.match import MismatchError

PROGRAM = """
program p(S) {
  input @x: f32[S]
  output @y: f32[S]
  output @z: f32[S]
  state main {
    @y: f32[S] = neg @x
    @z: f32[S] = abs @x
  }
}
"""


def test_the_draft_of_a_mismatch_is_dropped() -> None:
    def rewrite(draft: Draft, op: Op) -> None:
        draft.op("exp", ["@x"])
        if op.kind == "neg":
            raise MismatchError("found out after drafting")
        draft.commit(op)

    reasons: list[str] = []
    program = draft_states(parse(PROGRAM), rewrite, lambda op, reason: reasons.append(reason))
    assert [(op.result, op.kind) for op in program.ops()] == [("@y", "neg"), ("@z", "exp")]
    assert reasons == ["found out after drafting"]


def test_values_shared_by_a_mismatch_are_drafted_again() -> None:
    made: list[str] = []

    def rewrite(draft: Draft, op: Op) -> None:
        def make() -> str:
            made.append(op.kind)
            return draft.op("exp", ["@x"])

        shared = draft.once("exp", make)
        if op.kind == "neg":
            raise MismatchError("not here")
        draft.op("sqrt", [shared])
        draft.commit(op)

    program = draft_states(parse(PROGRAM), rewrite, lambda op, reason: None)
    assert made == ["neg", "abs"]
    assert [op.kind for op in program.ops()] == ["neg", "exp", "sqrt"]


TWICE = """
program p(S) {
  input @x: f32[S]
  persist @state: f32[S]
  output @y: f32[S]
  output @z: f32[S]
  state main {
    %0: f32[S] = neg @state
    @y: f32[S] = exp %0
    @state: f32[S] = copy @x
    %1: f32[S] = abs @state
    @z: f32[S] = exp %1
  }
}
"""


def test_what_reads_state_is_not_shared_with_a_later_site() -> None:
    def rewrite(draft: Draft, op: Op) -> None:
        if op.kind == "exp":
            draft.op("sqrt", [draft.once("sign", lambda: draft.op("sign", ["@state"]))])
            found.append(draft.commit(op))

    found: list[bool] = []
    program = draft_states(parse(TWICE), rewrite, lambda op, reason: None)
    assert found == [True, False], "the second site has read the state before and after a write"
    assert [op.kind for op in program.ops()] == ["sign", "sqrt", "copy", "abs", "exp"]
