"""The Python face: a model in, a loaded artifact out.

import dfcompiler as dfc
model = dfc.compile("model.onnx", out="model.dfc")
outputs = model.run({"input_ids": ids, "attention_mask": mask})
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dfcompiler.artifact_cache import keep_artifact, may_be_kept, recall_artifact
from dfcompiler.codegen.process import Background
from dfcompiler.codegen.store import sha256_of
from dfcompiler.errors import ModelError, UnsupportedError, UsageError, VerifyError
from dfcompiler.target import CpuTarget, parse_target

if TYPE_CHECKING:
    from dfcompiler.ir import Program
    from dfcompiler.ir.dims import Dim
    from dfcompiler.pipeline import Pass, Pipeline, PipelineResult, Step
    from dfcompiler.runtime import Model

Sizes: TypeAlias = "Mapping[str, int | Sequence[int | None]]"
PipelineLike: TypeAlias = "str | Path | Pipeline | Sequence[str | Step | Pass] | None"


@dataclass(frozen=True)
class Stage:
    """A step of the compilation that begins now.

    Attributes:
        name: what is done.
        number: its position, from 1.
        count: how many stages there are.
        program: the program as it is before this stage; None before the import.
    """

    name: str
    number: int
    count: int
    program: Program | None


Progress: TypeAlias = Callable[[Stage], None]


def compile(  # noqa: A001
    model: Any,
    out: str | PathLike[str] | None = None,
    target: str | CpuTarget = "cpu",
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
    progress: Progress | None = None,
) -> Model:
    """Compiles a model and loads the artifact.

    Args:
        model: path of an ONNX, ``.pt2`` or ``.ir`` file, an ``onnx.ModelProto``, a
            ``torch.nn.Module``, a ``torch.export.ExportedProgram``, or a `Program`.
        out: folder of the artifact; without it the artifact is temporary and goes with the object.
        target: ``cpu`` for this machine, or ``cpu:x86-64-v3`` and the like.
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
        tune: measure the best tiles of each product on this machine, and remember the fastest.
        progress: called at the start of every stage.

    Raises:
        DfcError: with one sentence; nothing is written then.
    """
    from dfcompiler.runtime import load

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
    )
    if out is not None:
        return load(compile_artifact(model, out, options, progress).path)
    parent = Path(tempfile.mkdtemp(prefix="dfcompiler-"))
    try:
        loaded = load(compile_artifact(model, parent / "model.dfc", options, progress).path)
    except BaseException:
        shutil.rmtree(parent, ignore_errors=True)
        raise
    weakref.finalize(loaded, shutil.rmtree, parent, ignore_errors=True)
    return loaded


@dataclass(frozen=True)
class Options:
    """The options of `compile`, under the same names."""

    target: str | CpuTarget = "cpu"
    shapes: Sizes | None = None
    pipeline: PipelineLike = None
    precision: str = "f32"
    force: bool = False
    limits: Mapping[str, int] | None = None
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None
    dynamic_shapes: Any = None
    tokenizer: str | PathLike[str] | None = None
    profile: bool = False
    tune: bool = False


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
    from dfcompiler.codegen import check_replaceable, find_compiler

    given = options or Options()
    machine = parse_target(given.target) if isinstance(given.target, str) else given.target
    _check_precision(given)
    if given.tokenizer is not None:
        _check_tokenizer(_existing(given.tokenizer))
    if not isinstance(out, str | PathLike):
        raise UsageError(
            f"the artifact's folder is a {type(out).__name__}; expected a path",
            hint="give example inputs by name: example_inputs=…",
        )
    folder = Path(out).absolute()
    check_replaceable(folder, given.force)
    find_compiler()
    stage = _Stages(progress)
    file, plain = _model_file(model), _plain_options(given)
    if file is None:
        return _compile(model, folder, given, machine, stage)
    stage("recall")
    hashing = Background(lambda: sha256_of(file))
    if plain is not None and may_be_kept(file):
        notes = recall_artifact(file, hashing.result(), plain, machine, folder)
        if notes is not None:
            return Compiled(folder, notes["report"], stage.finished())
    return _compile(model, folder, given, machine, stage, file, hashing.result, plain)


def _compile(
    model: Any,
    folder: Path,
    given: Options,
    machine: CpuTarget,
    stage: _Stages,
    file: Path | None = None,
    model_hash: Callable[[], str] = str,
    plain: Mapping[str, Any] | None = None,
) -> Compiled:
    """Builds an artifact; keeps that of a file."""
    report = _build(model, folder, given, machine, stage, model_hash)
    if file is not None and plain is not None:
        keep_artifact(file, model_hash(), plain, machine, folder, {"report": report})
    return Compiled(folder, report, stage.finished())


def _build(
    model: Any,
    folder: Path,
    given: Options,
    machine: CpuTarget,
    stage: _Stages,
    model_hash: Callable[[], str],
) -> Mapping[str, Any]:
    """Imports, optimizes, lowers and builds; the report, with the seconds of the passes.

    The program, and with it the model's memory, is gone when this returns.
    """
    from dfcompiler.codegen import build, prepare
    from dfcompiler.lowering import lower
    from dfcompiler.report.record import pass_rows, report_data

    prepare(machine if given.precision == "f32" else machine.extended())
    stage("import")
    program = import_model(
        model, example_inputs=given.example_inputs, dynamic_shapes=given.dynamic_shapes
    )
    program = specialize(program, given.shapes, given.limits)
    stage("optimize", program)
    result = optimize(program, machine, given.pipeline, given.precision)
    if given.tune:
        stage("tune", result.program)
        result = tuned(result, machine)
    stage("lower", result.program)
    lowered = lower(result.program, machine, profile=given.profile)
    stage("build", result.program)
    report = report_data(result, lowered.kernels)
    build(
        result,
        lowered,
        machine,
        folder,
        report=report,
        force=given.force,
        source_hash=model_hash,
        tokenizer=Path(given.tokenizer) if given.tokenizer is not None else None,
    )
    return {**report, "passes": pass_rows(result)}


def import_model(
    model: Any,
    *,
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
) -> Program:
    """The program of a model, as exported, before any pass.

    Raises:
        UsageError: if `model` is nothing that can be imported.
        ModelError: if it is broken or contradicts itself.
        UnsupportedError: with all operators that are missing.
    """
    from dfcompiler.ir import Program, verify

    if isinstance(model, Program):
        return verify(model)
    if isinstance(model, str | PathLike):
        return _import_file(_existing(model))
    kind = _kind(model)
    if kind == "onnx":
        from dfcompiler.importers.onnx import import_onnx

        return import_onnx(model)
    if kind == "exported":
        from dfcompiler.importers.torch_export import import_exported

        return import_exported(model)
    if kind == "module":
        from dfcompiler.importers.torch_export import import_module

        if example_inputs is None:
            raise UsageError(
                "a torch.nn.Module is traced; expected example_inputs",
                hint="compile(module, example_inputs={...}, dynamic_shapes={...})",
            )
        inputs = example_inputs if isinstance(example_inputs, Mapping) else tuple(example_inputs)
        return import_module(model, inputs, dynamic_shapes)
    raise UsageError(
        f"a {type(model).__name__} is no model; expected a path, an onnx.ModelProto, a "
        "torch.nn.Module, a torch.export.ExportedProgram or a Program"
    )


def specialize(
    program: Program, shapes: Sizes | None = None, limits: Mapping[str, int] | None = None
) -> Program:
    """The program with sizes fixed by symbol or by input shape, and with limits on others.

    Raises:
        UsageError: if a name does not exist or a size contradicts the model.
    """
    from dfcompiler.ir.specialize import bound_symbols, fix_symbols

    fixed = fix_symbols(program, given_sizes(program, shapes or {}))
    return bound_symbols(fixed, dict(limits or {}))


def given_sizes(program: Program, shapes: Sizes) -> dict[str, int]:
    """The values of symbols that sizes by symbol or by input shape fix.

    Raises:
        UsageError: if an input does not exist or a size contradicts the model.
    """
    from dfcompiler.ir.dims import show_dim

    values: dict[str, int] = {}
    for name, size in shapes.items():
        if isinstance(size, int):
            _bind(values, name, size, f"{name} = {size}")
            continue
        container = next((c for c in program.inputs if c.name == name), None)
        if container is None:
            listed = ", ".join(c.name for c in program.inputs)
            raise UsageError(f"the model has no input {name}; its inputs are: {listed}")
        declared = container.type.shape
        if len(declared) != len(size):
            shown = ", ".join(map(show_dim, declared))
            raise UsageError(f"{name} is [{shown}]; {len(size)} sizes were given")
        for dim, extent in zip(declared, size, strict=True):
            _bind_extent(values, name, dim, extent)
    return values


def optimize(
    program: Program,
    target: str | CpuTarget = "cpu",
    pipeline: PipelineLike = None,
    precision: str = "f32",
) -> PipelineResult:
    """Runs a pipeline: verified, measured and recorded after every pass.

    Raises:
        UsageError: if the pipeline does not exist.
        DfcError: from a pass, saying which one.
    """
    machine = parse_target(target) if isinstance(target, str) else target
    return resolve_pipeline(pipeline, machine, precision).run(program)


def tuned(result: PipelineResult, target: CpuTarget) -> PipelineResult:
    """The result with the fastest tiles that are remembered or measured here.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    from dataclasses import replace

    from dfcompiler.codegen.tuning import tune
    from dfcompiler.codegen.tuning_database import TuningDatabase
    from dfcompiler.pipeline import Snapshot
    from passes.tile_for_io import products, with_tiles

    wanted = products(result.program, result.probes)
    program = with_tiles(result.program, result.probes, tune(wanted, target, TuningDatabase()))
    if program is result.program:
        return result
    last = Snapshot(result.snapshots[-1].number + 1, "tune", program)
    return replace(result, program=program, snapshots=(*result.snapshots, last))


def resolve_pipeline(pipeline: PipelineLike, target: CpuTarget, precision: str = "f32") -> Pipeline:
    """The pipeline of a name, a TOML file, or a list of passes.

    Raises:
        UsageError: if there is none.
    """
    from dfcompiler.pipeline import Pass, Pipeline, assemble, read_steps
    from passes.pipelines import named

    if isinstance(pipeline, Pipeline):
        return pipeline
    if pipeline is None or (isinstance(pipeline, str) and not pipeline.endswith(".toml")):
        return named(pipeline or "default", target, precision)
    if isinstance(pipeline, str | Path):
        return assemble(read_steps(Path(pipeline)), target)
    steps = [one for one in pipeline if not isinstance(one, Pass)]
    ready = iter(assemble(steps, target).passes)
    return Pipeline(tuple(one if isinstance(one, Pass) else next(ready) for one in pipeline))


# ------------------------------------------------------------------------------------ the details


class _Stages:
    """Announces stages and keeps their times."""

    NAMES = ("recall", "import", "optimize", "tune", "lower", "build")

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.starts: dict[str, float] = {}

    def __call__(self, name: str, program: Program | None = None) -> None:
        self.starts[name] = time.perf_counter()
        if self.progress:
            number = self.NAMES.index(name) + 1
            self.progress(Stage(name, number, len(self.NAMES), program))

    def finished(self) -> dict[str, float]:
        """Seconds of every stage; the last one ends now."""
        ends = [*list(self.starts.values())[1:], time.perf_counter()]
        pairs = zip(self.starts.items(), ends, strict=True)
        return {name: end - start for (name, start), end in pairs}


def _model_file(model: Any) -> Path | None:
    """The file of a model whose artifact can be kept; None for anything else."""
    if not isinstance(model, str | PathLike):
        return None
    path = Path(model)
    return path if path.is_file() else None


def _plain_options(given: Options) -> dict[str, Any] | None:
    """The options as data that a digest can be made of; None if there is more to them.

    Live objects have no digest, and what tuning gives depends on what it measures.
    """
    pipeline = given.pipeline or "default"
    if given.tune or not isinstance(pipeline, str | Path):
        return None
    if str(pipeline).endswith(".toml"):
        path = _existing(pipeline)
        pipeline = path.read_text(encoding="utf-8", errors="replace")
    return {
        "shapes": {
            k: v if isinstance(v, int) else list(v) for k, v in (given.shapes or {}).items()
        },
        "pipeline": str(pipeline),
        "precision": given.precision,
        "limits": dict(given.limits or {}),
        "tokenizer": sha256_of(Path(given.tokenizer)) if given.tokenizer else "",
        "profile": given.profile,
        "force": given.force,
    }


def _check_precision(given: Options) -> None:
    from passes.pipelines import PRECISIONS

    if given.precision not in PRECISIONS:
        raise UnsupportedError(
            f"precision {given.precision} is not supported; expected one of {', '.join(PRECISIONS)}"
        )
    pipeline = given.pipeline or "default"
    if given.precision != "f32" and (not isinstance(pipeline, str) or pipeline.endswith(".toml")):
        raise UsageError(
            f"precision {given.precision} is for the pipelines that have a name; this one lists "
            "its passes itself",
            hint="put lower-precision among them",
        )


def _check_tokenizer(path: Path) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no tokenizer; expected a tokenizer.json")


def _existing(path: str | PathLike[str]) -> Path:
    found = Path(path)
    if not found.exists():
        raise UsageError(f"there is no file {found}")
    return found


def _import_file(path: Path) -> Program:
    if path.is_dir():
        what = "an artifact already" if (path / "manifest.json").is_file() else "a folder"
        hint = "run it with dfc run or dfc.load" if what.startswith("an") else ""
        raise UsageError(f"{path} is {what}; expected a model file", hint=hint)
    if path.suffix == ".ir":
        return _import_text(path)
    if path.suffix == ".pt2":
        from dfcompiler.importers.torch_export import import_exported, load_exported

        return import_exported(load_exported(path), path.stem)
    from dfcompiler.importers.onnx import import_onnx

    return import_onnx(path)


def _import_text(path: Path) -> Program:
    from dfcompiler.ir import parse, verify

    try:
        program = verify(parse(path.read_text(encoding="utf-8")))
    except (UsageError, VerifyError) as error:
        raise ModelError(f"{path} is no program: {error.message}", error.where) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not the text form of a program") from error
    if program.weights:
        raise ModelError(
            f"{path} is text without the values of its {len(program.weights)} weights",
            hint="compile the model it was made from",
        )
    return program


def _kind(model: Any) -> str:
    """What a model object is, by the names of its classes, so that nothing need be imported."""
    for base in type(model).__mro__:
        match base.__module__.split(".")[0], base.__name__:
            case "onnx", "ModelProto":
                return "onnx"
            case "torch", "ExportedProgram":
                return "exported"
            case "torch", "Module":
                return "module"
    return ""


def _bind_extent(values: dict[str, int], name: str, dim: Dim, extent: int | None) -> None:
    from dfcompiler.ir.dims import equal, show_dim

    if extent is None:
        return
    if isinstance(dim, int) or not dim.is_Symbol:
        if not equal(dim, extent):
            raise UsageError(f"{name} has size {show_dim(dim)} where {extent} was given")
        return
    _bind(values, dim.name, extent, f"{name} with {dim.name} = {extent}")


def _bind(values: dict[str, int], symbol: str, size: int, what: str) -> None:
    if values.setdefault(symbol, size) != size:
        raise UsageError(f"{what} contradicts {symbol} = {values[symbol]}, given before")
