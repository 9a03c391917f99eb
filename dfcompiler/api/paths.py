"""Paths that a user gives: of models, of files beside them, of artifacts."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from dfcompiler.errors import UsageError


def existing(path: str | PathLike[str]) -> Path:
    """The path of a file or folder that is there.

    Raises:
        UsageError: if there is none.
    """
    found = Path(path)
    if not found.exists():
        raise UsageError(f"there is no file {found}")
    return found


def artifact_folder(out: object) -> Path:
    """The absolute path of the folder that an artifact goes to.

    Raises:
        UsageError: if `out` is no path.
    """
    if not isinstance(out, str | PathLike):
        raise UsageError(
            f"the artifact's folder is a {type(out).__name__}; expected a path",
            hint="give example inputs by name: example_inputs=…",
        )
    return Path(out).absolute()


def model_file(model: Any) -> Path | None:
    """The file of a model that is given by its path; None for anything else."""
    if not isinstance(model, str | PathLike):
        return None
    path = Path(model)
    return path if path.is_file() else None
