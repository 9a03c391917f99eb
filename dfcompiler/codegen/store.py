"""A content-addressed store of build results that many processes may use at once."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from dfcompiler.codegen.process import go_on

LARGEST_BYTES = 1 << 30
_ABANDONED_S = 24 * 3600


def cache_folder() -> Path:
    """``DFC_CACHE_DIR``, or ``dfcompiler`` in the user's cache folder."""
    given = os.environ.get("DFC_CACHE_DIR")
    if given:
        return Path(given).absolute()  # g++ runs in folders of its own
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dfcompiler"


def digest(parts: Iterable[str | bytes]) -> str:
    """One hash for a sequence of parts; where a part ends counts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """The hash of a file, read piece by piece."""
    total, piece = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            go_on()
            total.update(piece[:count])
    return total.hexdigest()


def find(key: str) -> Path | None:
    """The folder of `key` if it is there and complete."""
    place = cache_folder() / key
    if not _is_intact(place):
        return None
    with contextlib.suppress(OSError):
        os.utime(place)
    return place


def stored(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of `key`; `make` fills it when it is not there.

    A folder appears complete or not at all: it is filled under another name and renamed. Where the
    cache cannot be written, the folder is a temporary one.
    """
    found = find(key)
    if found is not None:
        return found
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    except OSError:
        root = Path(tempfile.mkdtemp(prefix="dfc-cache-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    place = root / key
    try:
        make(work)
        _seal(work)
        _publish(work, place)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _prune(root, place)
    return place


def _seal(folder: Path) -> None:
    """Writes down what the folder holds, so that a damaged one is noticed."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    rows = [f"{p.stat().st_size} {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SEAL").write_text("".join(rows), encoding="utf-8")


def _is_intact(folder: Path) -> bool:
    try:
        rows = (folder / "SEAL").read_text(encoding="utf-8").splitlines()
        return all(
            (folder / name).stat().st_size == int(size)
            for size, _, name in (row.partition(" ") for row in rows)
        )
    except (OSError, ValueError):
        return False


def _publish(work: Path, place: Path) -> None:
    try:
        work.rename(place)
    except OSError:
        if _is_intact(place):
            return  # another process was faster; equal keys mean equal contents
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)


def _prune(root: Path, newest: Path) -> None:
    """Drops the entries that were not used for longest when the store is over its limit."""
    with contextlib.suppress(OSError):
        for left in root.glob(".new-*"):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
        folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
        folders.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for folder in folders:
            total += sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            if total > LARGEST_BYTES and folder != newest:
                shutil.rmtree(folder, ignore_errors=True)
