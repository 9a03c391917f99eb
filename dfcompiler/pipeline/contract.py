"""What a pass is: a rewrite, what it claims, and what it says about sites that it looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias

from dfcompiler.analysis.cost import Metrics
from dfcompiler.ir import Op, Program

Decline: TypeAlias = Callable[[Op, str], None]
"""Records an operator that a pass looked at and did not rewrite, with the reason."""

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda after, before: after == before,
    "<=": lambda after, before: after <= before,
}


@dataclass(frozen=True)
class Claim:
    """What a pass promises about a metric: ``flops ==`` (unchanged), ``moved_bytes <=``."""

    metric: str
    relation: str

    @staticmethod
    def parse(text: str) -> Claim:
        """The claim that `text` states.

        Raises:
            ValueError: if the metric or the relation is not known.
        """
        metric, _, relation = text.partition(" ")
        names = [field.name for field in fields(Metrics)]
        if metric not in names or relation not in _RELATIONS:
            raise ValueError(
                f"{text!r} is no claim: expected one of {', '.join(names)}, then == or <="
            )
        return Claim(metric, relation)

    def holds(self, before: Metrics, after: Metrics) -> bool:
        """Whether the claim is kept; a metric that is unknown on one side breaks no claim."""
        old, new = getattr(before, self.metric), getattr(after, self.metric)
        return old is None or new is None or _RELATIONS[self.relation](new, old)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation}"


@dataclass(frozen=True)
class Pass:
    """A rewrite of programs: a frozen dataclass whose fields are its options.

    Attributes:
        name: ``verb-object``, the file's name with hyphens.
        claims: what it promises, such as ``"flops =="`` or ``"moved_bytes <="``.
        after: for a pass of another package: the pass it follows in the named pipelines.
        runs_on: the kinds of targets that it prepares programs for.
    """

    name: ClassVar[str] = ""
    claims: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[str] = ""
    runs_on: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def run(self, program: Program, decline: Decline) -> Program:
        """The rewritten program; `program` itself when nothing matches."""
        raise NotImplementedError

    def decide(self, program: Program, decline: Decline) -> tuple[Program, tuple[Chosen, ...]]:
        """What `run` gives, and what it chose between alternatives with prices, for reports."""
        return self.run(program, decline), ()

    def parsed_claims(self) -> tuple[Claim, ...]:
        """The claims of this pass.

        Raises:
            ValueError: if a claim does not parse.
        """
        return tuple(map(Claim.parse, self.claims))


@dataclass(frozen=True)
class Declined:
    """A site that a pass looked at and left alone."""

    op: Op
    reason: str

    def __str__(self) -> str:
        origin = f" from {self.op.source}" if self.op.source else ""
        return f"{self.op.kind} {self.op.result}{origin}: {self.reason}"


@dataclass(frozen=True)
class Chosen:
    """A decision between alternatives, at modelled prices.

    Attributes:
        op: the operator as it was before.
        chosen: what was chosen.
        runner_up: the best alternative.
        runner_up_s: seconds of a call by which everything gets dearer with that.
        naive_s: the same for what a compiler without this pass would do.
    """

    op: Op
    chosen: str
    runner_up: str
    runner_up_s: float
    naive_s: float

    def __str__(self) -> str:
        origin = f" from {self.op.source}" if self.op.source else ""
        return (
            f"{self.op.kind} {self.op.result}{origin}: {self.chosen}; {self.runner_up} "
            f"+{self.runner_up_s * 1e6:.3g} µs, naive +{self.naive_s * 1e6:.3g} µs"
        )
