"""``dfc report``: what the passes did to a compiled model, and what its kernels cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dfcompiler.cli.options import FormatOption
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import ModelError
from dfcompiler.report import SCHEMA_VERSION


def report_command(
    context: typer.Context,
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="An artifact.")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Show an artifact's report: pass by pass, then kernel by kernel."""
    from dfcompiler.report.tables import kernel_table, pass_table

    session: Session = context.obj
    found = read_report(artifact)
    session.emit(
        form,
        {"command": "report", **found},
        pass_table(found["passes"], found["symbols"]),
        "",
        kernel_table(found["operators"], found["symbols"]),
    )


def read_report(artifact: Path) -> dict[str, Any]:
    """The contents of an artifact's ``report.json``.

    Raises:
        ModelError: if there is none, or one that this version does not read.
    """
    path = artifact / "report.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{artifact} has no readable report.json",
            hint="expected a folder that dfc compile made",
        ) from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{path} has schema version {version}; expected {SCHEMA_VERSION}",
            hint="compile the model again with this version",
        )
    missing = [name for name in ("passes", "operators", "symbols") if name not in found]
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}", hint="compile the model again")
    return dict(found)
