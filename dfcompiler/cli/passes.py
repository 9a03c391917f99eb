"""``dfc passes``: what passes there are, and in which order the pipeline runs them."""

from __future__ import annotations

from typing import Any

import typer
from rich.table import Table

from dfcompiler.cli.options import FormatOption, PipelineOption, TargetOption
from dfcompiler.cli.session import Format, Session


def passes_command(
    context: typer.Context,
    pipeline: PipelineOption = "default",
    target: TargetOption = "cpu",
    form: FormatOption = Format.TEXT,
) -> None:
    """List all installed passes, those of other packages included."""
    from dfcompiler import api
    from dfcompiler.pipeline import discover
    from dfcompiler.target import parse_target

    session: Session = context.obj
    order = [one.name for one in api.resolve_pipeline(pipeline, parse_target(target)).passes]
    found = discover()
    names = [*dict.fromkeys(order), *sorted(set(found) - set(order))]
    rows = [_row(name, found[name], order) for name in names]
    session.emit(
        form, {"command": "passes", "pipeline": order, "passes": rows}, _table(rows, pipeline)
    )


def _row(name: str, kind: Any, order: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "positions": [i for i, one in enumerate(order, 1) if one == name],
        "claims": list(kind.claims),
        "package": kind.__module__.partition(".")[0],
        "summary": (kind.__doc__ or "").strip().partition("\n")[0].replace("``", ""),
    }


def _table(rows: list[dict[str, Any]], pipeline: str) -> Table:
    table = Table("#", "pass", "what it does", "claims", "package", box=None, header_style="bold")
    for row in rows:
        positions = " ".join(map(str, row["positions"]))
        claims = ", ".join(row["claims"])
        table.add_row(positions, row["name"], row["summary"], claims, row["package"])
    table.caption = f"# is the position in the pipeline {pipeline}"
    return table
