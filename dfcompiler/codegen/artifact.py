"""The artifact: one directory with everything a compiled program needs, written whole or not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dfcompiler.codegen.dace_sources import generate_program, saved_graph
from dfcompiler.codegen.interface import interface_of
from dfcompiler.codegen.library import LIBRARY, PRELUDE, compile_unit, link_library
from dfcompiler.codegen.manifest import file_table, manifest, measured_rows, to_json
from dfcompiler.codegen.place import MANIFEST, check_replaceable, written_beside
from dfcompiler.codegen.process import Backgrounds, quick_turns
from dfcompiler.codegen.toolchain import find_toolchain
from dfcompiler.codegen.units import family_units, interface_unit, program_units
from dfcompiler.codegen.weights import WeightsFile, weights_table, write_weights
from dfcompiler.ir import Program, show
from dfcompiler.lowering.lowered import Lowered
from dfcompiler.lowering.symbolic import program_name
from dfcompiler.pipeline import Snapshot
from dfcompiler.target import CpuTarget, Target

WEIGHTS = "weights.bin"


class Transformed(Protocol):
    """What a pipeline gives, as far as an artifact keeps it."""

    @property
    def snapshots(self) -> Sequence[Snapshot]: ...


def build(
    result: Transformed | None,
    lowered: Lowered,
    target: Target,
    out: str | Path,
    *,
    report: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
    force: bool = False,
    source_hash: str | Callable[[], str] = "",
    tokenizer: str | Path | None = None,
    written: Callable[[Path, str], None] | None = None,
) -> Path:
    """Writes the artifact of a lowered program to `out` and returns its path.

    It is written beside `out` and renamed when complete: whatever happens, `out` is the complete
    new artifact or what it was before.

    Args:
        result: how the program came about; its snapshots are kept.
        lowered: the program, its graph and its arguments.
        target: the machine it was lowered for.
        out: the directory to make.
        report: contents of ``report.json``, or what gives them while others compile; equal
            compiles need equal reports.
        force: whether to replace an artifact that is there.
        source_hash: hash of the model, or what gives it when everything else is done.
        tokenizer: a file to keep as ``tokenizer.json``.
        written: called with the file of the weights and its hash, while compilers may still run.

    Raises:
        UsageError: if `out` exists and may not be replaced.
        ToolchainError: if the compiler is missing or fails.
    """
    out = Path(os.path.abspath(out))
    check_replaceable(out, force)
    if isinstance(target, CpuTarget) and any(record.extension for record in lowered.kernels):
        target = target.extended()
    tools = find_toolchain(target)
    interface = interface_of(lowered)
    with written_beside(out, force) as folder, quick_turns():
        table = weights_table(lowered.program)
        with Backgrounds() as aside:
            writing = aside.start(partial(_weights, folder / WEIGHTS, lowered.program, written))
            generated = generate_program(lowered.sdfg, PRELUDE, lowered.work)
            symbols = tuple(map(program_name, generated.symbols))
            interface = replace(interface, call_symbols=symbols)
            calls = interface_unit(interface, table, target)
            units = [*program_units(generated, target), *family_units(lowered.instances), calls]
            compiling = [aside.start(partial(compile_unit, unit, target)) for unit in units]
            (folder / "model.h").write_text(calls.files["model.h"], encoding="utf-8")
            _write_documents(folder, result, lowered, report, tokenizer)
            weights = writing.result()
            objects = [one.result() for one in compiling]
        link_library(units, objects, target, folder / "src", folder / LIBRARY)
        origin = source_hash if isinstance(source_hash, str) else source_hash()
        facts = manifest(interface, target, tools, weights.tensors, lowered.kernels, origin)
        if lowered.measured:
            facts["measured"] = measured_rows(lowered.measured)
        facts["files"] = file_table(folder, {WEIGHTS: weights.sha256})
        (folder / MANIFEST).write_text(to_json(facts), encoding="utf-8")
    return out


def _weights(
    path: Path, program: Program, written: Callable[[Path, str], None] | None
) -> WeightsFile:
    weights = write_weights(path, program)
    if written:
        written(path, weights.sha256)
    return weights


def _write_documents(
    folder: Path,
    result: Transformed | None,
    lowered: Lowered,
    report: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None,
    tokenizer: str | Path | None,
) -> None:
    """What is there to be read: graph, programs after passes, report, tokenizer."""
    (folder / "model.sdfgz").write_bytes(saved_graph(lowered.sdfg))
    (folder / "ir").mkdir()
    for snapshot in result.snapshots if result else ():
        path = folder / "ir" / snapshot.file_name
        path.write_text(show(snapshot.program), encoding="utf-8")
    facts = report() if callable(report) else report or {}
    (folder / "report.json").write_text(to_json(facts), encoding="utf-8")
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
