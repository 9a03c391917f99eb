"""Reports as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def pass_table(rows: Sequence[Mapping[str, Any]], symbols: Mapping[str, int]) -> Table:
    """The passes of a report; what a pass left as it was is shown as a dot."""
    timed = any(row.get("seconds") is not None for row in rows)
    names = ("ops", "GFLOP", "MB moved", "MB bound", "MB values", "MB weights", "declined")
    table = _table(symbols, "pass", *(("ms",) if timed else ()), *names)
    for row in rows:
        cells = _metrics(row) if row["changed"] else ["·"] * 6
        seconds = row.get("seconds")
        milliseconds = [""] if seconds is None else [f"{seconds * 1e3:.0f}"]
        declined = str(len(row["declined"]) or "")
        table.add_row(row["pass"], *(milliseconds if timed else []), *cells, declined)
    return table


def _metrics(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["ops"]),
        f"{row['flops'] * 1e-9:.3f}",
        _megabytes(row["moved_bytes"]),
        _megabytes(row["io_bound_bytes"]),
        _megabytes(row["value_bytes"]),
        _megabytes(row["weight_bytes"]),
    ]


def kernel_table(rows: Sequence[Mapping[str, Any]], symbols: Mapping[str, int]) -> Table:
    """Kernels of one kind and implementation together, the most operations first.

    The intensity is operations per byte that the schedule moves; the ratio is moved bytes over the
    sum of the operators' own bounds.
    """
    numbers = ("count", "GFLOP", "MB moved", "MB bound", "ratio", "flop/byte")
    table = _table(symbols, "kernel", *numbers, "implementation")
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["implementation"]), []).append(row)
    by_work = sorted(groups.items(), key=lambda item: (-_sum(item[1], "flops"), item[0]))
    for (kind, implementation), members in by_work:
        flops, moved = _sum(members, "flops"), _sum(members, "moved_bytes")
        bounds = [row["io_bound_bytes"] for row in members]
        bound = None if None in bounds else sum(bounds)
        table.add_row(
            kind,
            str(sum(row["runs"] for row in members)),
            f"{flops * 1e-9:.3f}",
            _megabytes(moved),
            _megabytes(bound),
            f"{moved / bound:.2f}" if bound else "",
            f"{flops / moved:.1f}" if moved else "",
            implementation,
        )
    return table


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _megabytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value * 1e-6:.1f}"


def _table(symbols: Mapping[str, int], first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column(first)
    for name in columns:
        table.add_column(name, justify="left" if name == "implementation" else "right")
    sizes = ", ".join(f"{name} = {size}" for name, size in symbols.items())
    table.caption = f"metrics at {sizes}" if sizes else None
    return table
