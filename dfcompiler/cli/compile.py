"""``dfc compile``: a model in, an artifact out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from dfcompiler.cli.options import (
    ExpansionOption,
    FormatOption,
    ModelArgument,
    PipelineOption,
    PrecisionOption,
    ShapeOption,
    TargetOption,
    parse_names,
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
    precision: PrecisionOption = "f32",
    tokenizer: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--tokenizer", metavar="FILE", help="tokenizer.json to keep in the artifact."),
    ] = None,
    end_token: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--end-token", metavar="ID", help="A token that ends a generated text."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Measure every operator while running.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure the best kernels of each product here.")
    ] = False,
    expansion: ExpansionOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact.")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compile a model into an artifact."""
    from dfcompiler import api
    from dfcompiler.cli.progress import progress_bar
    from dfcompiler.codegen.tuning_database import TuningWarning

    session: Session = context.obj
    options = api.Options(
        target=target,
        shapes=parse_shapes(shape),
        pipeline=pipeline,
        precision=precision,
        force=force,
        limits=parse_sizes(limit, "--limit"),
        tokenizer=tokenizer,
        profile=profile,
        tune=tune,
        expansions=parse_names(expansion, "--expansion"),
        end_tokens=tuple(end_token or ()),
    )
    with warnings.catch_warnings(record=True) as caught, progress_bar(session) as bar:
        warnings.simplefilter("default", TuningWarning)
        done = api.compile_artifact(model, out, options, bar)
    for warning in caught:
        session.log.print(f"warning: {warning.message}")
    data: dict[str, Any] = {
        "command": "compile",
        "artifact": str(out),
        "seconds": dict(done.seconds),
        **{key: done.report[key] for key in ("symbols", "passes", "kernels")},
    }
    session.emit(form, data, *_text(data))


def _text(data: dict[str, Any]) -> list[Any]:
    from dfcompiler.report.tables import pass_table

    seconds = data["seconds"]
    kernels = ", ".join(f"{count} {name}" for name, count in data["kernels"].items())
    stages = ", ".join(f"{name} {elapsed:.2f}" for name, elapsed in seconds.items())
    verb = "copied from the cache" if list(seconds) == ["recall"] else "compiled"
    return [
        pass_table(data["passes"], data["symbols"]),
        f"kernels: {kernels}",
        f"{data['artifact']}: {verb} in {sum(seconds.values()):.2f} s ({stages})",
    ]
