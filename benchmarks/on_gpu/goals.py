"""What `benchmarks.gpu` must show, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Standing = Mapping[str, Any]
"""How an artifact stands in a case: ``over`` each peer, ``share`` of the ceiling, ``error``."""


@dataclass(frozen=True)
class Goal:
    """A bound on something measured.

    Attributes:
        cases: beginnings of the names of cases, or these names.
        what: what is bounded.
        needed: the bound.
        value: it, from how an artifact stands; None where it was not measured.
        sign: ``>=`` or ``<=``.
    """

    cases: tuple[str, ...]
    what: str
    needed: float
    value: Callable[[Standing], float | None]
    sign: str = ">="

    def is_reached(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.needed if self.sign == ">=" else value <= self.needed


def over(*peers: str) -> Callable[[Standing], float | None]:
    """The least ratio of the time of these peers, those that were measured, to ours."""
    return lambda standing: min(
        (standing["over"][peer] for peer in peers if peer in standing["over"]), default=None
    )


def share(standing: Standing) -> float | None:
    """The share of the ceiling."""
    return float(standing["share"])


def error(standing: Standing) -> float | None:
    """Our error over that of torch."""
    return float(standing["error"])


EAGER, COMPILE = ("eager", "eager_graph"), ("compile", "compile_graph")
BERT_LARGE, BERT_BASE = ("bert_large_layer", "bert_large"), ("bert_base_1x128",)
MEMORY_BOUND, DECODE = ("add_norm", "softmax", "gated"), ("decode_1b",)
GOALS = (
    Goal(BERT_LARGE, "speed over torch.compile, with and without graphs", 1.15, over(*COMPILE)),
    Goal(BERT_LARGE, "speed over eager, with and without graphs", 1.3, over(*EAGER)),
    Goal(BERT_LARGE, "share of the bf16 ceiling", 0.6, share),
    Goal(BERT_BASE, "speed over torch.compile without graphs", 2.0, over("compile")),
    Goal(BERT_BASE, "speed over torch.compile with graphs", 1.1, over("compile_graph")),
    Goal(DECODE, "share of the copy bandwidth", 0.8, share),
    Goal(DECODE, "speed over torch.compile, with and without graphs", 1.3, over(*COMPILE)),
    Goal(("attention_",), "speed over torch's attention", 1.0, over(*EAGER)),
    Goal(("attention_",), "share of the bf16 ceiling", 0.55, share),
    Goal(MEMORY_BOUND, "share of the copy bandwidth", 0.85, share),
    Goal(("",), "error over that of torch", 1.5, error, "<="),
)


def outcomes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal for each of its cases.

    ``reached`` speaks of the default artifact: yes, no, or not measured; where another one reaches
    what the default does not, it is named.
    """
    return [
        outcome(goal, row)
        for goal in GOALS
        for row in rows
        if row["case"] in goal.cases
        or any(row["case"].startswith(n) for n in goal.cases if not n or n.endswith("_"))
    ]


def outcome(goal: Goal, row: Mapping[str, Any]) -> dict[str, Any]:
    """A goal for a case."""
    values = {name: goal.value(standing) for name, standing in row["ours"].items()}
    found = {name: value for name, value in values.items() if value is not None}
    reaching = [name for name, value in found.items() if goal.is_reached(value)]
    others = [name for name in reaching if name != "ours"]
    if "ours" in reaching:
        reached = "yes"
    elif others:
        reached = f"no, but by {', '.join(others)}"
    else:
        reached = "no" if "ours" in found or "ours" in row["failed"] else "not measured"
    return {
        "case": row["case"],
        "what": goal.what,
        "sign": goal.sign,
        "needed": goal.needed,
        "found": found,
        "reached": reached,
    }
