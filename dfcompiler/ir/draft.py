"""Drafting the operators that take the place of one operator of a state."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from dfcompiler.ir.dims import Shape, same_shape
from dfcompiler.ir.match import MismatchError
from dfcompiler.ir.program import Attr, Attrs, Op, Program
from dfcompiler.ir.rewrite import UNKNOWN, StateRewriter, rewrite_states, with_inferred_type
from dfcompiler.ir.types import TensorType


class Draft:
    """Operators drafted for the place of one operator of a state, their types inferred.

    What was committed stays readable for later drafts, so `once` shares values between sites,
    unless a draft reads a container that the program writes.
    """

    def __init__(self, state: StateRewriter) -> None:
        self.state = state
        self._types: dict[str, TensorType] = {}
        self._pending: list[Op] = []
        self._shared: dict[Hashable, str] = {}
        self._unsure: dict[Hashable, str] = {}

    def type_of(self, name: str) -> TensorType:
        """The type of a drafted or an existing value."""
        return self._types[name] if name in self._types else self.state.type_of(name)

    def op(
        self,
        kind: str,
        inputs: Sequence[str] = (),
        attrs: Mapping[str, Attr] | None = None,
        *,
        type: TensorType | None = None,  # noqa: A002
        source: str = "",
    ) -> str:
        """Drafts an operator and returns the name of its result.

        Raises:
            ValueError: from the type rule.
        """
        op = Op(self.state.fresh(), type or UNKNOWN, kind, tuple(inputs), Attrs(attrs), source)
        if type is None:
            op = with_inferred_type(op, [self.type_of(name) for name in inputs])
        self._pending.append(op)
        self._types[op.result] = op.type
        return op.result

    def reshape(self, name: str, shape: Shape) -> str:
        """`name` seen with another shape."""
        found = self.type_of(name)
        if same_shape(found.shape, shape):
            return name
        return self.op("reshape", [name], type=TensorType(found.dtype, shape))

    def declare(self, name: str, type: TensorType) -> str:  # noqa: A002
        """Makes a weight readable that the pass will add to the program; returns its name."""
        self._types[name] = type
        return name

    def once(self, key: Hashable, make: Callable[[], str]) -> str:
        """The value drafted under `key` before, or the one that `make` drafts now."""
        known = self._shared.get(key) or self._unsure.get(key)
        if known is None:
            known = self._unsure[key] = make()
        return known

    def commit(self, op: Op) -> bool:
        """Puts the draft in the place of `op`; False, and nothing done, if a read would change.

        The draft reads what `op` and the operators before it read. Where the program writes such
        a container, they must all have read it after the last write before `op`.
        """
        reads = {name for drafted in self._pending for name in drafted.inputs}
        moving = [n for n in reads - self._types.keys() if not self.state.is_stable(n)]
        if not all(_reads_alike(self.state, name, op) for name in moving):
            self.discard()
            return False
        *first, last = self._pending
        self.state.replace(op, [*first, replace(last, result=op.result)])
        if not moving:
            self._shared |= self._unsure
        self._pending, self._unsure = [], {}
        return True

    def discard(self) -> None:
        """Drops what was drafted since the last commit."""
        self._pending, self._unsure = [], {}


def _reads_alike(state: StateRewriter, name: str, op: Op) -> bool:
    """Whether every value computed from a container before `op` saw what `op` would read in it."""
    before = state.state.ops[: state.positions[id(op)]]
    written = max((i for i, other in enumerate(before) if other.result == name), default=-1)
    return not any(
        name in other.inputs and other.result.startswith("%") for other in before[: written + 1]
    )


def draft_states(
    program: Program,
    rewrite: Callable[[Draft, Op], None],
    decline: Callable[[Op, str], None],
) -> Program:
    """Applies `rewrite` to every operator; on a `MismatchError` the site stays as it is."""

    def rule(state: StateRewriter) -> None:
        draft = Draft(state)
        for op in state.state.ops:
            try:
                rewrite(draft, op)
            except MismatchError as mismatch:
                draft.discard()
                decline(op, str(mismatch))

    return rewrite_states(program, rule)
