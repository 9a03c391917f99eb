"""Where an artifact goes: what may be replaced, and how it gets there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfcompiler.errors import UsageError

MANIFEST = "manifest.json"


def is_artifact(path: Path) -> bool:
    """Whether a directory is one of our artifacts, of any version."""
    try:
        facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and "schema_version" in facts and "signature" in facts


def check_replaceable(out: Path, force: bool) -> None:
    """Asks whether an artifact may be written to `out`; worth asking before any work.

    Raises:
        UsageError: if something is there that may not be replaced, or the place does not exist.
    """
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} for the artifact does not exist")
    if not os.path.lexists(out):
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    if out.is_symlink() or not out.is_dir() or not is_artifact(out):
        raise UsageError(
            f"{out} exists and is no artifact; it is never replaced", hint="choose another path"
        )
    if not force:
        raise UsageError(f"{out} exists already", hint="replace it with --force (force=True)")


@contextmanager
def written_beside(out: Path, force: bool) -> Iterator[Path]:
    """A new directory that becomes `out` when the block ends without an exception.

    Raises:
        UsageError: if `out` may not be replaced, asked at the start and again at the end.
    """
    check_replaceable(out, force)
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder = holder / "new"
        folder.mkdir()
        yield folder
        check_replaceable(out, force)
        try:
            if os.path.lexists(out):
                out.rename(holder / "old")
            folder.rename(out)
        except BaseException:
            if (holder / "old").exists():
                (holder / "old").rename(out)
            raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
