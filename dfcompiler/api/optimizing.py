"""Passes over a program: which ones, and running them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dfcompiler.api.machines import machine_of
from dfcompiler.target import Target

if TYPE_CHECKING:
    from dfcompiler.ir import Program
    from dfcompiler.pipeline import Pass, Pipeline, PipelineResult, Rewritten, Step

PipelineLike: TypeAlias = "str | Path | Pipeline | Sequence[str | Step | Pass] | None"
"""What stands for a pipeline: a name, a TOML file, itself, its passes; None is the default one."""


def optimize(
    program: Program,
    target: str | Target = "cpu",
    pipeline: PipelineLike = None,
    precision: str = "f32",
) -> PipelineResult:
    """Runs a pipeline: verified, measured and recorded after every pass.

    Raises:
        UsageError: if the pipeline does not exist.
        DfcError: from a pass, saying which one.
    """
    return resolve_pipeline(pipeline, machine_of(target), precision).run(program)


def rewritten(
    program: Program,
    target: Target,
    pipeline: PipelineLike = None,
    precision: str = "f32",
    expansions: Mapping[str, str] | None = None,
    end_tokens: Sequence[int] = (),
) -> Rewritten:
    """Runs a pipeline like `optimize`, but measures and checks claims when that is asked for.

    The tiles of products are those of the expansion that is asked for.

    Raises:
        UsageError: if the pipeline does not exist.
        DfcError: from a pass, saying which one.
    """
    whole = resolve_pipeline(pipeline, target, precision, end_tokens)
    return _with_expansion(whole, (expansions or {}).get("matmul", "")).rewrite(program)


def _with_expansion(pipeline: Pipeline, expansion: str) -> Pipeline:
    """The pipeline whose tiles are those of one expansion; empty: as it is."""
    from passes.tile_for_io import TileForIo

    if not expansion:
        return pipeline
    return replace(
        pipeline,
        passes=tuple(
            replace(one, expansion=expansion) if isinstance(one, TileForIo) else one
            for one in pipeline.passes
        ),
    )


def resolve_pipeline(
    pipeline: PipelineLike,
    target: Target,
    precision: str = "f32",
    end_tokens: Sequence[int] = (),
) -> Pipeline:
    """The pipeline of a name, a TOML file, or a list of passes.

    Precision and end tokens are for pipelines that have a name.

    Raises:
        UsageError: if there is none.
    """
    from dfcompiler.pipeline import Pass, Pipeline, assemble, read_steps
    from passes.pipelines import named

    if isinstance(pipeline, Pipeline):
        return pipeline
    if pipeline is None or (isinstance(pipeline, str) and not pipeline.endswith(".toml")):
        return named(pipeline or "default", target, precision, end_tokens)
    if isinstance(pipeline, str | Path):
        return assemble(read_steps(Path(pipeline)), target)
    steps = [one for one in pipeline if not isinstance(one, Pass)]
    ready = iter(assemble(steps, target).passes)
    return Pipeline(tuple(one if isinstance(one, Pass) else next(ready) for one in pipeline))
