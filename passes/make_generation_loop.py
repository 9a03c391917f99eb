"""Turn one step of a decoder into greedy generation as a loop of the program itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from dfcompiler.errors import UsageError
from dfcompiler.ir import Container, DType, Loop, Op, Program, Role, State, Symbol, TensorType
from dfcompiler.ir.dims import Dim, free_symbols, symbol
from dfcompiler.ir.rewrite import Builder, substitute_symbols
from dfcompiler.pipeline import Decline, Pass
from passes.rules.end_tokens import EndTokens
from passes.rules.names import unused


@dataclass(frozen=True)
class MakeGenerationLoop(Pass):
    """Runs a decoder's step on the prompt, then again and again on the token it predicted.

    ::

        input  @ids: i64[1, S]                 input  @ids: i64[1, S]
        persist @cache …                       persist @cache …
        output @logits: f32[1, V]              output @logits: f32[1, V]
        state main { step(@ids) }        ──▶   output @tokens: i64[1, N]
                                               temp   @token: i64[1, 1]
                                               state prefill { step(@ids); @token = argmax }
                                               loop generate for t in 1..N {
                                                 state decode { step(@token); @tokens[t] = … }
                                               }

    The step must keep what it has read in persistent containers and give the logits of the next
    token. N is given at run time: 1 is a prefill alone (or, with S = 1, one step of decoding), more
    is a whole generation. After a call the cache holds the prompt and all new tokens but the last;
    a following call goes on from there with that token as its prompt.

    With end tokens the loop goes on ``until @stopped``, when each row of the batch has had one, and
    the program has one output more: ``@lengths: i64[batch]``, the tokens of each row in front of
    its end token, N where there is none. Behind it the row is filled with the first of the end
    tokens. The cache never holds the token with which the loop stopped.

    The pipeline `generation` begins with it; others leave it out, since it changes what the
    program gives.

    Attributes:
        ids: the input with the prompt's tokens, [batch, S].
        logits: the output with the scores of the next token, [batch, V].
        tokens: name of the new output.
        count: name of the new symbol.
        end_tokens: ids of the tokens that end a row; none: every row has N tokens.
        lengths: name of the output with the tokens in front of them.
    """

    name: ClassVar[str] = "make-generation-loop"

    ids: str = "ids"
    logits: str = "logits"
    tokens: str = "tokens"
    count: str = "N"
    end_tokens: Sequence[int] = ()
    lengths: str = "lengths"

    def run(self, program: Program, decline: Decline) -> Program:
        state, sequence = self._step(program)
        prompt = program.container(self.ids).type
        token = TensorType(DType.I64, (prompt.shape[0], 1))
        result = TensorType(DType.I64, (prompt.shape[0], symbol(self.count)))
        tokens = Container(Role.OUTPUT, self.tokens, result)
        names = {c.name for c in program.containers} | {s.name for s in program.symbols}
        previous, variable = unused("token", names), unused("t", names)
        last = Container(Role.TEMP, previous, token)
        ends = EndTokens.of(self.end_tokens, last, self.lengths, names)
        containers = (*program.containers, tokens, last, *(ends.containers if ends.ids else ()))
        types = {f"@{c.name}": c.type for c in containers}
        chosen = self._pick(types, f"@{previous}")
        if ends.ids:
            first = [*ends.begin(tokens), *self._place(types, f"@{previous}", 0)]
            then = ends.advance()
        else:
            first, then = [Op(f"@{self.tokens}", result, "expand", (f"@{previous}",))], []
        step = substitute_symbols(state.ops, {sequence: 1})
        renamed = [op.renamed({f"@{self.ids}": f"@{previous}"}) for op in step]
        place = self._place(types, f"@{previous}", symbol(variable))
        decode = State("decode", (*renamed, *chosen, *then, *place))
        until = f"@{ends.stopped.name}" if ends.ids else ""
        body = (
            State("prefill", (*state.ops, *chosen, *first)),
            Loop("generate", variable, 1, symbol(self.count), (decode,), until),
        )
        longest = next(s.maximum for s in program.symbols if s.name == sequence)
        symbols = (*program.symbols, Symbol(self.count, longest))
        return replace(program, symbols=symbols, containers=containers, body=body)

    def _pick(self, types: dict[str, TensorType], into: str) -> list[Op]:
        """The most probable token, written to `into`."""
        builder = Builder(types, prefix="%best")
        best = builder.op("argmax", [f"@{self.logits}"], {"axis": 1})
        builder.op("reshape", [best], type=types[into], result=into)
        return builder.ops

    def _place(self, types: dict[str, TensorType], token: str, position: Dim) -> list[Op]:
        """Writes the token at a position of the result."""
        builder = Builder(types, prefix="%place")
        place = builder.op("dim", (), {"value": position}, type=TensorType(DType.I64))
        index = builder.op("reshape", [place], type=TensorType(DType.I64, (1,)))
        result = f"@{self.tokens}"
        builder.op("index_copy", [result, index, token], {"axis": 1}, result=result)
        return builder.ops

    def _step(self, program: Program) -> tuple[State, str]:
        """The state that is one step, and the symbol of the prompt's length.

        Raises:
            UsageError: if the program is not a decoder's step.
        """
        table = program.table()
        for name, role in ((self.ids, Role.INPUT), (self.logits, Role.OUTPUT)):
            if name not in table or table[name].role is not role:
                raise UsageError(f"the program has no {role.value} @{name}", hint="name it")
        new = [self.tokens, *([self.lengths] if self.end_tokens else [])]
        if not table.keys().isdisjoint(new) or self.count in {s.name for s in program.symbols}:
            raise UsageError(f"the names {', '.join(new)} and {self.count} must be new")
        others = [f"@{c.name}" for c in program.inputs if c.name != self.ids]
        if others:
            raise UsageError(f"the step also takes {', '.join(others)}; expected @{self.ids} alone")
        if not program.by_role(Role.PERSIST):
            raise UsageError("the step keeps nothing between calls; expected a KV cache")
        prompt, logits = table[self.ids].type, table[self.logits].type
        if prompt.dtype is not DType.I64 or prompt.rank != 2 or isinstance(prompt.shape[1], int):
            raise UsageError(f"@{self.ids} is {prompt}; expected i64[batch, S]")
        if logits.rank != 2:
            raise UsageError(
                f"@{self.logits} is {logits}; expected [batch, V]",
                hint="let the module give the logits of the last position only",
            )
        if len(program.body) != 1 or not isinstance(program.body[0], State):
            raise UsageError("the program has control flow already; expected one state")
        sequence = str(prompt.shape[1])
        sized = [c for c in program.containers if sequence in free_symbols(*c.type.shape)]
        if any(c.name != self.ids for c in sized):
            raise UsageError(
                f"@{sized[-1].name} is sized by {sequence}; expected @{self.ids} alone"
            )
        return program.body[0], sequence
