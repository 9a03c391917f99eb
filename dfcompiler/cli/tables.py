"""The pass table and the kernel counts that ``compile`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.pipeline import PipelineResult


def pass_rows(result: PipelineResult) -> list[dict[str, Any]]:
    """One row for the import and one for every pass, with metrics at the last probe."""
    first = result.records[0].before[-1] if result.records else None
    rows: list[dict[str, Any]] = []
    if first is not None:
        rows.append({"pass": "import", "seconds": None, "changed": True, **asdict(first)})
    for record in result.records:
        rows.append(
            {
                "pass": record.name,
                "seconds": record.seconds,
                "changed": record.changed,
                "declined": len(record.declined),
                **asdict(record.after[-1]),
            }
        )
    return rows


def pass_table(rows: list[dict[str, Any]], symbols: Mapping[str, int]) -> Table:
    """Rows of `pass_rows` for people; what a pass left as it was is shown as a dot."""
    columns = ("pass", "ms", "ops", "GFLOP", "MB moved", "MB values", "MB weights", "declined")
    table = Table(box=None, header_style="bold")
    table.add_column(columns[0])
    for name in columns[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        if not row["changed"]:
            cells = ["·"] * 5
        else:
            cells = [
                str(row["ops"]),
                f"{row['flops'] * 1e-9:.3f}",
                f"{row['moved_bytes'] * 1e-6:.1f}",
                f"{row['value_bytes'] * 1e-6:.1f}",
                f"{row['weight_bytes'] * 1e-6:.1f}",
            ]
        seconds = row["seconds"]
        milliseconds = "" if seconds is None else f"{seconds * 1e3:.0f}"
        table.add_row(row["pass"], milliseconds, *cells, str(row.get("declined") or ""))
    sizes = ", ".join(f"{name} = {size}" for name, size in symbols.items())
    table.caption = f"metrics at {sizes}" if sizes else None
    return table


def kernel_counts(kernels: Iterable[KernelRecord]) -> dict[str, int]:
    """How often each implementation was chosen, the most frequent first."""
    return dict(Counter(record.implementation for record in kernels).most_common())
