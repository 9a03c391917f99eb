"""``dfc run``: an artifact on arrays from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.table import Table

from dfcompiler.cli.options import ArtifactArgument, FormatOption, parse_sizes
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import UsageError


def run_command(
    context: typer.Context,
    artifact: ArtifactArgument,
    inputs: Annotated[Path, typer.Option("--inputs", metavar="FILE.npz", help="Input arrays.")],
    outputs: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads it at run time)
        typer.Option("--outputs", metavar="FILE.npz", help="Where output arrays go."),
    ] = None,
    symbol: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--symbol", metavar="NAME=NUMBER", help="A size that no input fixes."),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Run an artifact on the arrays of an .npz file."""
    from dfcompiler.runtime import load

    session: Session = context.obj
    model = load(artifact)
    found = model.run(read_arrays(inputs), **parse_sizes(symbol, "--symbol"))
    if outputs is not None:
        _write_arrays(outputs, found)
    rows = [_row(name, array) for name, array in found.items()]
    table = Table("output", "dtype", "shape", "min", "max", "mean", box=None, header_style="bold")
    for row in rows:
        numbers = ("" if row[key] is None else f"{row[key]:.6g}" for key in ("min", "max", "mean"))
        table.add_row(row["name"], row["dtype"], str(row["shape"]), *numbers)
    written = {"file": str(outputs)} if outputs else {}
    session.emit(form, {"command": "run", **written, "outputs": rows}, table)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; pickled objects are refused.

    Raises:
        UsageError: if the file is missing or no such file.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as file:
                return {name: file[name] for name in file.files}
    except Exception as error:
        raise UsageError(f"{path} is no .npz file of plain arrays: {error}") from error
    raise UsageError(
        f"{path} holds one array without a name; expected an .npz file",
        hint="write it with numpy.savez(path, NAME=array)",
    )


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes beside `path` and renames, so that an interrupt leaves nothing half-written."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file; it is never replaced")
    partial = path.with_name(f".{path.name}.partial.npz")
    try:
        np.savez(partial, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _row(name: str, array: np.ndarray) -> dict[str, Any]:
    values = array.astype(np.float64) if array.size else None
    numbers: dict[str, float | None] = dict.fromkeys(("min", "max", "mean"))
    if values is not None:
        numbers = {
            "min": float(values.min()),
            "max": float(values.max()),
            "mean": float(values.mean()),
        }
    return {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), **numbers}
