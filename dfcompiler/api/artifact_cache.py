"""Compiling the same file again with the same options is a copy of the artifact.

An artifact is kept under a digest of all that it depends on: the model's file and the files of its
external data, the options, the compiler's own code and that of its passes, and the versions of the
tools. Nothing of it needs the model to be imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfcompiler.codegen import code_digest, find_toolchain, keep, recall, sources_digest
from dfcompiler.codegen.store import digest, find, sha256_of, stored
from dfcompiler.target import Target

_TOOLS = ("dace", "numpy", "onnx", "sympy", "ml_dtypes")


def may_be_kept(model: Path) -> bool:
    """Whether an artifact of a file of this size was kept: only then is its hash worth waiting."""
    return find(_size_key(model)) is not None


def recall_artifact(
    model: Path, model_hash: str, options: Mapping[str, Any], target: Target, out: Path
) -> dict[str, Any] | None:
    """Writes the artifact that was kept for this file to `out`; its notes, None if there is none.

    Raises:
        UsageError: if `out` exists and may not be replaced.
    """
    files = _external_files(model_hash)
    if files is None or not is_cacheable():
        return None
    try:
        hashes = [sha256_of(model.parent / name) for name in files]
    except OSError:
        return None
    key = _key(model.stem, model_hash, hashes, options, target)
    found = recall(key, out, force=bool(options.get("force")))
    return json.loads(found.notes) if found else None


def keep_artifact(
    model: Path,
    model_hash: str,
    options: Mapping[str, Any],
    target: Target,
    artifact: Path,
    notes: Mapping[str, Any],
) -> None:
    """Keeps an artifact and notes on its making; a full disk keeps nothing.

    Args:
        model: the file that was compiled.
        model_hash: its sha256.
        options: of the compilation, as plain data.
        target: the machine it was compiled for.
        artifact: what to keep.
        notes: any plain data, given back by `recall_artifact`.
    """
    if not is_cacheable():
        return
    names = _referred_files(model)

    def list_files(folder: Path) -> None:
        (folder / "files.json").write_text(json.dumps(names), encoding="utf-8")

    with suppress(OSError):
        stored(_size_key(model), lambda folder: None)
        stored(_list_key(model_hash), list_files)
        hashes = [sha256_of(model.parent / name) for name in names]
        key = _key(model.stem, model_hash, hashes, options, target)
        keep(key, artifact, json.dumps(notes).encode())


def _referred_files(model: Path) -> list[str]:
    """The files that a model reads besides itself; only ONNX models do."""
    if model.suffix in (".ir", ".pt2"):
        return []
    from dfcompiler.importers.onnx import external_files

    return list(external_files(model))


def _external_files(model_hash: str) -> list[str] | None:
    """The names of the files that this model reads besides itself; None: not compiled before."""
    folder = find(_list_key(model_hash))
    if folder is None:
        return None
    names: list[str] = json.loads((folder / "files.json").read_text(encoding="utf-8"))
    return names


def _size_key(model: Path) -> str:
    return digest(["size of a kept model", str(model.stat().st_size)])


def _list_key(model_hash: str) -> str:
    return digest(["external files", model_hash, code_digest()])


def _key(
    name: str,
    model_hash: str,
    hashes: Iterable[str],
    options: Mapping[str, Any],
    target: Target,
) -> str:
    """A digest of everything that decides the artifact; a file's name becomes the program's."""
    plain = {name: value for name, value in options.items() if name != "force"}
    tools = [f"{name} {_version(name)}" for name in _TOOLS]
    parts = (name, model_hash, *hashes, json.dumps(plain, sort_keys=True), repr(target), *tools)
    return digest([*parts, str(find_toolchain(target)), code_digest(), _passes_digest()])


def is_cacheable() -> bool:
    """Whether all passes are ours; what those of other packages depend on is not known."""
    points = entry_points(group="dfcompiler.passes")
    return all(point.value.startswith("passes.") for point in points)


@cache
def _passes_digest() -> str:
    """A hash of the files of our passes."""
    spec = find_spec("passes")
    if spec is None or spec.origin is None:
        return ""
    return sources_digest(Path(spec.origin).parent)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
