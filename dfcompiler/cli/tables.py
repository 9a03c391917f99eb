"""The pass table that ``compile`` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def pass_table(rows: Sequence[Mapping[str, Any]], symbols: Mapping[str, int]) -> Table:
    """The rows of a report for people; what a pass left as it was is shown as a dot."""
    columns = ("pass", "ms", "ops", "GFLOP", "MB moved", "MB values", "MB weights", "declined")
    table = Table(box=None, header_style="bold")
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        cells = _metrics(row) if row["changed"] else ["·"] * 5
        seconds = row["seconds"]
        milliseconds = "" if seconds is None else f"{seconds * 1e3:.0f}"
        table.add_row(row["pass"], milliseconds, *cells, str(len(row["declined"]) or ""))
    sizes = ", ".join(f"{name} = {size}" for name, size in symbols.items())
    table.caption = f"metrics at {sizes}" if sizes else None
    return table


def _metrics(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["ops"]),
        f"{row['flops'] * 1e-9:.3f}",
        f"{row['moved_bytes'] * 1e-6:.1f}",
        f"{row['value_bytes'] * 1e-6:.1f}",
        f"{row['weight_bytes'] * 1e-6:.1f}",
    ]
