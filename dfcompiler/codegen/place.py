"""Where an artifact goes: what may be replaced, and how it gets there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfcompiler.errors import UsageError

MANIFEST = "manifest.json"
_REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    errno.ENAMETOOLONG,
)
"""What a file system says when it does not take a file; anything else is a mistake of ours."""


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
        UsageError: if `out` may not be replaced, asked at the start and again at the end, or if
            the file system does not take it.
    """
    check_replaceable(out, force)
    holder = None
    try:
        try:
            holder = Path(tempfile.mkdtemp(prefix=f".{out.name[:64]}-", dir=out.parent))
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}") from error
        folder = holder / "new"
        folder.mkdir()
        yield folder
        check_replaceable(out, force)
        _exchange(folder, out, holder / "old")
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        if holder is not None:
            shutil.rmtree(holder, ignore_errors=True)


def _exchange(new: Path, out: Path, old: Path) -> None:
    try:
        if os.path.lexists(out):
            out.rename(old)
        new.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
