"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "–"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; short rows are filled up."""
    width = len(header)
    filled = [
        [*(cell.replace("|", "/") for cell in row), *[""] * (width - len(row))] for row in rows
    ]
    return [
        f"| {' | '.join(header)} |",
        f"|{' --- |' * width}",
        *(f"| {' | '.join(row)} |" for row in filled),
    ]
