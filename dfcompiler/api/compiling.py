"""From a model to its artifact: import, optimize, lower and build, or copy from the cache."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfcompiler.api.artifact_cache import (
    is_cacheable,
    keep_artifact,
    may_be_kept,
    recall_artifact,
)
from dfcompiler.api.importing import import_model
from dfcompiler.api.optimizing import PipelineLike, rewritten
from dfcompiler.api.options import Options
from dfcompiler.api.paths import artifact_folder, model_file
from dfcompiler.api.specializing import Sizes, specialize
from dfcompiler.api.stages import Progress, Stages
from dfcompiler.api.tuning import tuned
from dfcompiler.codegen import keep_ahead
from dfcompiler.codegen.process import Backgrounds, fewer_collections
from dfcompiler.codegen.store import sha256_of
from dfcompiler.target import Target

if TYPE_CHECKING:
    from dfcompiler.runtime import Model


def compile(  # noqa: A001
    model: Any,
    out: str | PathLike[str] | None = None,
    target: str | Target = "cpu",
    shapes: Sizes | None = None,
    pipeline: PipelineLike = None,
    precision: str = "f32",
    force: bool = False,
    limits: Mapping[str, int] | None = None,
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
    tokenizer: str | PathLike[str] | None = None,
    profile: bool = False,
    tune: bool = False,
    expansions: Mapping[str, str] | None = None,
    end_tokens: Sequence[int] = (),
    progress: Progress | None = None,
) -> Model:
    """Compiles a model and loads the artifact.

    For a GPU that this machine does not have, the artifact is written all the same; its model says
    so when it is to run.

    Args:
        model: path of an ONNX, ``.pt2`` or ``.ir`` file, an ``onnx.ModelProto``, a
            ``torch.nn.Module``, a ``torch.export.ExportedProgram``, or a `Program`.
        out: folder of the artifact; without it the artifact is temporary and goes with the object.
        target: ``cpu`` for this machine, ``cpu:x86-64-v3`` and the like, or ``cuda:sm_90``.
        shapes: sizes to fix: by symbol (``{"batch": 1}``) or by input (``{"ids": (1, None)}``).
        pipeline: the name of a pipeline, a TOML file, or passes; the default one if absent.
        precision: ``f32``: every value keeps the element type of the model; ``bf16``: products
            multiply in bfloat16 and add up in float, weights take half of the bytes.
        force: replace an artifact that is already there.
        limits: greatest values of sizes that stay free.
        example_inputs: for a ``torch.nn.Module``: what to trace it with.
        dynamic_shapes: for a ``torch.nn.Module``: which sizes stay free, as in ``torch.export``.
        tokenizer: a ``tokenizer.json`` that goes into the artifact, for ``dfc generate``.
        profile: measure every operator while running; see `Model.operator_times`.
        tune: measure the best kernels of each product on this machine, and remember the fastest;
            for a GPU on one, which has to be there.
        expansions: the implementation of all operators of a kind, such as ``{"matmul": "wgmma"}``;
            without it each takes the one that is expected to be fastest.
        end_tokens: for the pipeline ``generation``: ids of the tokens that end a text.
        progress: called at the start of every stage.

    Raises:
        DfcError: with one sentence; nothing is written then.
    """
    from dfcompiler.runtime import load, load_later

    options = Options(
        target,
        shapes,
        pipeline,
        precision,
        force,
        limits,
        example_inputs,
        dynamic_shapes,
        tokenizer,
        profile,
        tune,
        expansions,
        end_tokens,
    )
    if out is not None:
        return load_later(compile_artifact(model, out, options, progress).path)
    parent = Path(tempfile.mkdtemp(prefix="dfcompiler-"))
    try:
        loaded = load(compile_artifact(model, parent / "model.dfc", options, progress).path)
    except BaseException:
        shutil.rmtree(parent, ignore_errors=True)
        raise
    weakref.finalize(loaded, shutil.rmtree, parent, ignore_errors=True)
    return loaded


@dataclass(frozen=True)
class Compiled:
    """An artifact, and how it came about.

    Attributes:
        path: the artifact.
        report: the contents of its ``report.json``; passes have their ``seconds`` besides.
        seconds: how long each stage took; ``recall`` alone when the artifact was in the cache.
    """

    path: Path
    report: Mapping[str, Any]
    seconds: Mapping[str, float]


def compile_artifact(
    model: Any,
    out: str | PathLike[str],
    options: Options | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Like `compile`, without loading the artifact.

    Raises:
        DfcError: with one sentence; nothing is written then.
    """
    from dfcompiler.codegen import check_replaceable, find_toolchain

    given = options or Options()
    machine = given.machine()
    given.check()
    folder = artifact_folder(out)
    check_replaceable(folder, given.force)
    find_toolchain(machine)
    stages = Stages(progress)
    build = partial(_build, model, folder, given, machine, stages)
    file, plain = model_file(model), given.plain()
    with fewer_collections():
        if file is None:
            report = build(str)
        else:
            report = _recalled_or_built(file, plain, machine, folder, stages, build)
    return Compiled(folder, report, stages.finished())


def _recalled_or_built(
    file: Path,
    plain: Mapping[str, Any] | None,
    machine: Target,
    folder: Path,
    stages: Stages,
    build: Callable[..., Mapping[str, Any]],
) -> Mapping[str, Any]:
    """The report of an artifact that was in the cache, or is in it from now on.

    Without `plain` options there is no key to find it under, and it is built.
    """
    stages("recall")
    with Backgrounds() as aside:
        model_hash = aside.start(lambda: sha256_of(file)).result
        if plain is None:
            return build(model_hash)
        if may_be_kept(file):
            notes = recall_artifact(file, model_hash(), plain, machine, folder)
            if notes is not None:
                found: Mapping[str, Any] = notes["report"]
                return found
        report = build(model_hash, keep_ahead if is_cacheable() else None)
        keep_artifact(file, model_hash(), plain, machine, folder, {"report": report})
        return report


def _build(
    model: Any,
    folder: Path,
    given: Options,
    machine: Target,
    stages: Stages,
    model_hash: Callable[[], str],
    written: Callable[[Path, str], None] | None = None,
) -> Mapping[str, Any]:
    """Imports, optimizes, lowers and builds; the report, with the seconds of the passes.

    The program, and with it the model's memory, is gone when this returns.
    """
    from dfcompiler.codegen import build
    from dfcompiler.lowering import lower
    from dfcompiler.report.record import pass_rows, report_data

    stages("import")
    program = import_model(
        model, example_inputs=given.example_inputs, dynamic_shapes=given.dynamic_shapes
    )
    program = specialize(program, given.shapes, given.limits)
    stages("optimize", program)
    result = rewritten(
        program, machine, given.pipeline, given.precision, given.expansions, given.end_tokens
    )
    if given.tune:
        stages("tune", result.program)
        result = tuned(result, machine)
    stages("lower", result.program)
    lowered = lower(result.program, machine, given.expansions, profile=given.profile)
    stages("build", result.program)
    report = cache(lambda: report_data(result.measured, lowered.kernels))
    build(
        result,
        lowered,
        machine,
        folder,
        report=report,
        force=given.force,
        source_hash=model_hash,
        written=written,
        tokenizer=Path(given.tokenizer) if given.tokenizer is not None else None,
    )
    return {**report(), "passes": pass_rows(result.measured)}
