"""Whole artifacts kept in the store, so that compiling the same model again is a copy."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dfcompiler.codegen.place import written_beside
from dfcompiler.codegen.store import LARGEST_BYTES, digest, find, stored

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Recalled:
    """An artifact from the store, and what was kept about its making."""

    path: Path
    notes: bytes


def recall(key: str, out: str | Path, *, force: bool = False) -> Recalled | None:
    """Writes the artifact that was kept under `key` to `out`; None if there is none.

    Raises:
        UsageError: if `out` exists and may not be replaced.
    """
    found = find(_name(key))
    if found is None:
        return None
    out = Path(os.path.abspath(out))
    with written_beside(out, force) as folder:
        shutil.copytree(found / "artifact", folder, dirs_exist_ok=True)
    return Recalled(out, (found / "notes").read_bytes())


def keep(key: str, artifact: Path, notes: bytes = b"") -> None:
    """Keeps an artifact under `key`: a digest of the model, the options and `code_digest`.

    One that is larger than the whole store may be is not kept.
    """
    if sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file()) > LARGEST_BYTES:
        return

    def make(work: Path) -> None:
        shutil.copytree(artifact, work / "artifact")
        (work / "notes").write_bytes(notes)

    stored(_name(key), make)


@cache
def code_digest() -> str:
    """A hash of this compiler: its Python files, kernels and templates."""
    return sources_digest(_ROOT)


def sources_digest(root: Path) -> str:
    """A hash of the sources below a folder: their paths and contents."""
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".py", ".h", ".cpp", ".sh") and "__pycache__" not in path.parts
    )
    names = (path.relative_to(root).as_posix() for path in files)
    return digest(
        part for name, path in zip(names, files, strict=True) for part in (name, path.read_bytes())
    )


def _name(key: str) -> str:
    return digest(["artifact", key])
