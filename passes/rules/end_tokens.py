"""Tokens that end a generation: which rows have one, and how many tokens they have before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dfcompiler.ir import Container, DType, Op, Role, TensorType
from dfcompiler.ir.rewrite import Builder
from passes.rules.names import unused


@dataclass(frozen=True)
class EndTokens:
    """What a loop over tokens keeps of its rows.

    Attributes:
        ids: the tokens that end a row; the first one also fills what comes behind.
        token: the container with the last token of each row, i64[batch, 1].
        ended: that with which rows have ended, bool[batch, 1].
        stopped: that with whether all of them have, bool[].
        lengths: the output with their numbers of tokens before the end, i64[batch].
    """

    ids: tuple[int, ...]
    token: Container
    ended: Container
    stopped: Container
    lengths: Container

    @staticmethod
    def of(ids: Iterable[int], token: Container, lengths: str, taken: set[str]) -> EndTokens:
        """The containers for a loop, temporary ones with names that are not taken."""
        batch = token.type.shape[0]
        flags = TensorType(DType.BOOL, token.type.shape)
        return EndTokens(
            tuple(ids),
            token,
            Container(Role.TEMP, unused("ended", taken), flags),
            Container(Role.TEMP, unused("stopped", taken), TensorType(DType.BOOL)),
            Container(Role.OUTPUT, lengths, TensorType(DType.I64, (batch,))),
        )

    @property
    def containers(self) -> tuple[Container, ...]:
        """Those that the program gets."""
        return self.ended, self.stopped, self.lengths

    def begin(self, tokens: Container) -> list[Op]:
        """Operators behind the choice of the first token: they fill the result with the end."""
        builder = self._builder("%first")
        self._mark(builder, ended=self._is_end(builder))
        none = builder.constant(0, self.lengths.type)
        self._count(builder, none)
        builder.op(
            "constant", (), {"value": self.ids[0]}, type=tokens.type, result=f"@{tokens.name}"
        )
        return builder.ops

    def advance(self) -> list[Op]:
        """Operators behind the choice of a token: a row that has ended goes on with the end."""
        builder = self._builder("%end")
        token, ended = f"@{self.token.name}", f"@{self.ended.name}"
        if self.token.type.shape[0] != 1:
            last = builder.constant(self.ids[0], TensorType(DType.I64))
            builder.op("where", [ended, last, token], type=self.token.type, result=token)
        self._mark(builder, ended=builder.op("or", [ended, self._is_end(builder)]))
        self._count(builder, f"@{self.lengths.name}")
        return builder.ops

    def _builder(self, prefix: str) -> Builder:
        known = (self.token, *self.containers)
        return Builder({f"@{c.name}": c.type for c in known}, prefix)

    def _is_end(self, builder: Builder) -> str:
        """Whether the token of each row is one of the ids."""
        found = ""
        for number in self.ids:
            wanted = builder.constant(number, TensorType(DType.I64))
            same = builder.op("equal", [f"@{self.token.name}", wanted])
            found = builder.op("or", [found, same]) if found else same
        return found

    def _mark(self, builder: Builder, ended: str) -> None:
        builder.op("copy", [ended], type=self.ended.type, result=f"@{self.ended.name}")

    def _count(self, builder: Builder, before: str) -> None:
        """Adds the rows that go on to their lengths; stops where there are none."""
        goes_on = builder.op("not", [f"@{self.ended.name}"])
        ones = builder.op("cast", [goes_on], {"to": DType.I64})
        flat = builder.op("reshape", [ones], type=self.lengths.type)
        builder.op("add", [before, flat], result=f"@{self.lengths.name}")
        rows = builder.op("reduce_sum", [flat], {"axes": (0,)})
        none = builder.constant(0, TensorType(DType.I64))
        builder.op("equal", [rows, none], result=f"@{self.stopped.name}")
