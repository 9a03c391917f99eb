"""The artifact: one directory with everything a compiled program needs, written whole or not."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dfcompiler.codegen import c_api
from dfcompiler.codegen.build import (
    LIBRARY,
    PRELUDE,
    Sources,
    build_library,
    prelude_text,
)
from dfcompiler.codegen.dace_sources import generate_program, saved_graph
from dfcompiler.codegen.interface import interface_of
from dfcompiler.codegen.manifest import file_table, manifest, to_json
from dfcompiler.codegen.toolchain import find_compiler
from dfcompiler.codegen.weights import write_weights
from dfcompiler.errors import UsageError
from dfcompiler.ir import show
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.pipeline import Snapshot
from dfcompiler.target import CpuTarget

MANIFEST = "manifest.json"


class Transformed(Protocol):
    """What a pipeline gives, as far as an artifact keeps it."""

    @property
    def snapshots(self) -> Sequence[Snapshot]: ...


def build(
    result: Transformed | None,
    lowered: Lowered,
    target: CpuTarget,
    out: str | Path,
    *,
    report: Mapping[str, Any] | None = None,
    force: bool = False,
    source_hash: str = "",
    tokenizer: str | Path | None = None,
) -> Path:
    """Writes the artifact of a lowered program to `out` and returns its path.

    It is written beside `out` and renamed when complete: whatever happens, `out` is the complete
    new artifact or what it was before.

    Args:
        result: how the program came about; its snapshots are kept.
        lowered: the program, its graph and its arguments.
        target: the machine it was lowered for.
        out: the directory to make.
        report: contents of ``report.json``; equal compiles need equal reports.
        force: whether to replace an artifact that is there.
        source_hash: hash of the model.
        tokenizer: a file to keep as ``tokenizer.json``.

    Raises:
        UsageError: if `out` exists and may not be replaced.
        ToolchainError: if the compiler is missing or fails.
    """
    out = Path(os.path.abspath(out))
    check_replaceable(out, force)
    compiler = find_compiler()
    interface = interface_of(lowered)
    with _written_beside(out) as folder:
        stored = write_weights(folder / "weights.bin", lowered.program)
        weight_bytes = (folder / "weights.bin").stat().st_size
        generated = generate_program(lowered.sdfg, PRELUDE)
        header = c_api.header(interface)
        sources = Sources(
            {
                PRELUDE: prelude_text(generated.includes),
                "program.cpp": generated.code,
                "interface.cpp": c_api.template("interface.cpp", {}),
                "tables.h": c_api.tables(interface, stored, weight_bytes),
                "model.h": header,
            }
        )
        build_library(sources, target, folder / "src", folder / LIBRARY)
        (folder / "model.h").write_text(header, encoding="utf-8")
        (folder / "model.sdfgz").write_bytes(saved_graph(lowered.sdfg))
        _write_snapshots(folder / "ir", result.snapshots if result else ())
        (folder / "report.json").write_text(to_json(report or {}), encoding="utf-8")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, folder / "tokenizer.json")
        facts = manifest(interface, target, compiler, stored, lowered.kernels, source_hash)
        facts["files"] = file_table(folder)
        (folder / MANIFEST).write_text(to_json(facts), encoding="utf-8")
        check_replaceable(out, force)
    return out


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
def _written_beside(out: Path) -> Iterator[Path]:
    """A new directory that becomes `out` when the block ends without an exception."""
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        folder = holder / "new"
        folder.mkdir()
        yield folder
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


def _write_snapshots(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    folder.mkdir()
    for snapshot in snapshots:
        (folder / snapshot.file_name).write_text(show(snapshot.program), encoding="utf-8")
