"""Lower bounds beside schedules: rows as data, and a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from dfcompiler.analysis.io_bound.levels import KernelBounds, LevelBound


def bound_rows(kernels: Iterable[KernelBounds]) -> list[dict[str, Any]]:
    """One row for every operator; all figures are those of one run."""
    return [_row(kernel) for kernel in kernels]


def _row(kernel: KernelBounds) -> dict[str, Any]:
    op = kernel.op
    return {
        "kind": f"fused {op.attr('kernel')}" if op.region else op.kind,
        "result": op.result,
        "type": str(op.type),
        "source": op.source,
        "runs": kernel.runs,
        "volume": kernel.volume,
        "flops": kernel.flops,
        "compulsory_bytes": kernel.compulsory_bytes,
        "tile": list(op.attr("tile", ())),
        "binding": kernel.binding,
        "least_s": kernel.least_s,
        "levels": [_level(level) for level in kernel.levels],
    }


def _level(found: LevelBound) -> dict[str, Any]:
    return {
        "level": found.level.name,
        "fast_bytes": found.level.fast_bytes,
        "bound_bytes": found.bound_bytes,
        "theorem": found.theorem,
        "moved_bytes": found.moved_bytes,
        "ratio": found.ratio,
        "best_block": list(found.best_block) if found.best_block else None,
    }


def bound_table(rows: Sequence[Mapping[str, Any]], symbols: Mapping[str, int]) -> Table:
    """Operators with equal figures in one line; a line for each level of memory below it."""
    table = Table(box=None, header_style="bold")
    numbers = ("runs", "volume", "compulsory", "level", "bound", "moved", "ratio", "best block")
    table.add_column("kernel")
    for name in numbers:
        table.add_column(name, justify="left" if name == "level" else "right")
    table.add_column("theorem, or what binds")
    sizes = ", ".join(f"{name} = {size}" for name, size in symbols.items())
    table.caption = f"KB of one run{f', at {sizes}' if sizes else ''}"
    for members in _groups(rows):
        first = members[0]
        tile = f" tile {_tile_text(first['tile'])}" if first["tile"] else ""
        table.add_row(
            f"{first['kind']} {first['type']}{tile}",
            str(sum(row["runs"] for row in members)),
            f"{first['volume']:.3g}",
            _kilobytes(first["compulsory_bytes"]),
            *("",) * 5,
            f"{first['binding']}: {first['least_s'] * 1e6:.1f} µs at least",
        )
        for level in first["levels"]:
            block, ratio = level["best_block"], level["ratio"]
            table.add_row(
                *("",) * 4,
                f"{level['level']} {level['fast_bytes'] / 1024:.0f} KiB",
                _kilobytes(level["bound_bytes"]),
                _kilobytes(level["moved_bytes"]),
                "" if ratio is None else f"{ratio:.2f}",
                f"{block[0]}×{block[1]}" if block else "",
                level["theorem"].partition(":")[0],
            )
    return table


def _tile_text(tile: Sequence[Any]) -> str:
    """The numbers of a tile; those of several, each for a range of rows, with or between them."""
    if isinstance(tile[0], int):
        return "×".join(map(str, tile))
    return " or ".join("×".join(map(str, shape)) for _, *shape in tile)


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows that say the same; the most operations first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        same = {k: v for k, v in row.items() if k not in ("result", "source", "runs")}
        groups.setdefault(repr(same), []).append(row)
    return sorted(groups.values(), key=lambda g: -sum(r["flops"] * r["runs"] for r in g))


def _kilobytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1000:.1f}"
