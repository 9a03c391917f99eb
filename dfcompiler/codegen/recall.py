"""Whole artifacts kept in the store, so that compiling the same model again is a copy."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dfcompiler.codegen.place import MANIFEST, written_beside
from dfcompiler.codegen.store import LARGEST_BYTES, digest, find, stored

_ROOT = Path(__file__).parent.parent
_SHARED_BYTES = 1 << 20
"""Files of this size are kept apart, once for all artifacts that have them."""
_DATA = "data"


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
    listed = json.loads((found / "shared.json").read_text(encoding="utf-8"))
    shared = {name: find(_file_name(sha256)) for name, sha256 in listed.items()}
    if None in shared.values():
        return None
    out = Path(os.path.abspath(out))
    with written_beside(out, force) as folder:
        shutil.copytree(found / "artifact", folder, dirs_exist_ok=True)
        for name, place in shared.items():
            if place is not None:
                shutil.copyfile(place / _DATA, folder / name)
    return Recalled(out, (found / "notes").read_bytes())


def keep(key: str, artifact: Path, notes: bytes = b"") -> None:
    """Keeps an artifact under `key`: a digest of the model, the options and `code_digest`.

    One that is larger than the whole store may be is not kept.
    """
    if sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file()) > LARGEST_BYTES:
        return
    files = json.loads((artifact / MANIFEST).read_text(encoding="utf-8"))["files"]
    shared = {n: row["sha256"] for n, row in files.items() if row["bytes"] >= _SHARED_BYTES}
    for name, sha256 in shared.items():
        _keep_file(artifact / name, sha256)

    def others(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(artifact)
        return {name for name in names if (place / name).as_posix() in shared}

    def make(work: Path) -> None:
        shutil.copytree(artifact, work / "artifact", ignore=others)
        (work / "shared.json").write_text(json.dumps(shared), encoding="utf-8")
        (work / "notes").write_bytes(notes)

    stored(_name(key), make)


def keep_ahead(path: Path, sha256: str) -> None:
    """Keeps a file of an artifact that will be kept, if it is one that artifacts share.

    A full disk keeps nothing.
    """
    if _SHARED_BYTES <= path.stat().st_size <= LARGEST_BYTES:
        with suppress(OSError):
            _keep_file(path, sha256)


def _keep_file(path: Path, sha256: str) -> None:
    def make(work: Path) -> None:
        shutil.copyfile(path, work / _DATA)

    stored(_file_name(sha256), make)


@cache
def code_digest() -> str:
    """A hash of this compiler: its Python files, kernels and templates."""
    return sources_digest(_ROOT)


def sources_digest(root: Path) -> str:
    """A hash of the sources below a folder: their paths and contents."""
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix in (".py", ".h", ".cuh", ".cpp", ".sh") and "__pycache__" not in path.parts
    )
    names = (path.relative_to(root).as_posix() for path in files)
    return digest(
        part for name, path in zip(names, files, strict=True) for part in (name, path.read_bytes())
    )


def _name(key: str) -> str:
    return digest(["artifact", key])


def _file_name(sha256: str) -> str:
    return digest(["file", sha256])
