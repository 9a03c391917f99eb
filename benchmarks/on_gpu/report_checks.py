"""What `benchmarks.gpu` checked, as a table: how many outputs are right, and which are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.on_gpu.checks import PREFIX
from benchmarks.on_gpu.markdown import NOTHING, markdown

NAMED = 8
"""So many wrong outputs are named in the table; the JSON has all of them."""


def checks_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown: a line for each artifact, without and with a graph; none without rows."""
    if not rows:
        return []
    lines = [line for row in rows for line in _lines(row)]
    return ["## Checks", "", *markdown(("check", "right", "wrong"), lines), "", "## Times", ""]


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    wrong, failed = row.get("wrong", {}), row["failed"]
    who = [*wrong, *(name for name in failed if name not in wrong)]
    title = row["case"].removeprefix(PREFIX)
    if not who:
        return [[title, NOTHING, row.get("left_out", "")]]
    return [[f"{title}{_variant(name)}", *_verdict(row, name)] for name in who]


def _variant(name: str) -> str:
    return name.removeprefix("ours").replace("_", ", ") if name.startswith("ours") else f", {name}"


def _verdict(row: Mapping[str, Any], name: str) -> tuple[str, str]:
    """How many outputs are right, and the others with their errors."""
    if name in row["failed"]:
        return NOTHING, row["failed"][name]
    errors, wrong = row["errors"][name], row["wrong"][name]
    of_torch = row["errors"].get("torch", {})
    named = [_said(one, errors[one], of_torch.get(one)) for one in wrong[:NAMED]]
    more = [f"{len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
    seconds = row.get("seconds_a_token", {}).get(name)
    notes = [] if seconds is None else [f"{seconds * 1e6:.0f} µs a token"]
    right = f"{len(errors) - len(wrong)} of {len(errors)}"
    return right, "; ".join([*named, *more, *notes]) or NOTHING


def _said(name: str, found: float, of_torch: float | None) -> str:
    return f"{name} {found:.2g}" + ("" if of_torch is None else f" (torch {of_torch:.2g})")
