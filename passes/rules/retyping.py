"""Rewriting a state into other types, operator by operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import replace

from dfcompiler.ir import Attrs, DType, Op, Program, State, TensorType
from dfcompiler.ir.rewrite import StateRewriter
from dfcompiler.pipeline import Decline


class Retyping(ABC):
    """One state; a pass says in `rewrite` what becomes of an operator.

    Attributes:
        forms: copies of values in another type, which all their readers share.
        ops: what the operators so far have become.
    """

    def __init__(self, program: Program, state: State, decline: Decline) -> None:
        self.state, self.decline = state, decline
        self.rewriter = StateRewriter(program, state)
        self.forms: dict[str, dict[DType, str]] = defaultdict(dict)
        self.ops: list[Op] = []

    def result(self) -> State:
        """The rewritten state; the same object when nothing changed."""
        for op in self.state.ops:
            self.rewrite(op)
            # After a write, other forms of a container are what it held before.
            self.forms.pop(op.result, None)
        changed = self.ops != list(self.state.ops)
        return replace(self.state, ops=tuple(self.ops)) if changed else self.state

    @abstractmethod
    def rewrite(self, op: Op) -> None:
        """Appends what an operator becomes."""

    def copy(self, name: str, dtype: DType) -> str:
        """The name of `name` in `dtype`: a cast that the first reader appends."""
        forms = self.forms[name]
        if dtype not in forms:
            forms[dtype] = self.rewriter.fresh()
            origin, kind = self.rewriter.producer(name), self.rewriter.type_of(name)
            source = origin.source if origin else ""
            self.ops.append(cast(name, forms[dtype], kind.with_dtype(dtype), source))
        return forms[dtype]


def cast(name: str, result: str, kind: TensorType, source: str) -> Op:
    """The operator that gives `name` as `result` in the type `kind`."""
    return Op(result, kind, "cast", (name,), Attrs({"to": kind.dtype}), source)
