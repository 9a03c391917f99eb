"""``dfc compile``: a model in, an artifact out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from dfcompiler.cli.options import (
    FormatOption,
    ModelArgument,
    PipelineOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
    parse_sizes,
)
from dfcompiler.cli.session import Format, Session


def compile_command(
    context: typer.Context,
    model: ModelArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The artifact to write.")],
    target: TargetOption = "cpu",
    shape: ShapeOption = None,
    limit: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads it at run time)
        typer.Option("--limit", metavar="NAME=NUMBER", help="Greatest value of a free size."),
    ] = None,
    pipeline: PipelineOption = "default",
    precision: Annotated[str, typer.Option("--precision", help="f32.")] = "f32",
    tokenizer: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--tokenizer", metavar="FILE", help="tokenizer.json to keep in the artifact."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact.")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compile a model into an artifact."""
    from dfcompiler import api
    from dfcompiler.cli.progress import progress_bar

    session: Session = context.obj
    started = time.perf_counter()
    with progress_bar(session) as bar:
        api.compile(
            model,
            out=out,
            target=target,
            shapes=parse_shapes(shape),
            pipeline=pipeline,
            precision=precision,
            force=force,
            limits=parse_sizes(limit, "--limit"),
            tokenizer=tokenizer,
            progress=bar,
        )
    elapsed_s = time.perf_counter() - started
    session.emit(
        form,
        {"command": "compile", "artifact": str(out), "elapsed_s": elapsed_s},
        f"{out}: compiled in {elapsed_s:.1f} s",
    )
