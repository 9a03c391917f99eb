"""``dfc verify``: what an artifact computes against a reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.table import Table

from dfcompiler.cli.options import (
    FormatOption,
    ModelOrArtifact,
    PipelineOption,
    PrecisionOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
)
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import ModelError, ToleranceError, UsageError

_TOLERANCES = {"f32": 1e-5, "bf16": 2e-2}
_POLICIES = {
    "f32": "computed in the model's own precision",
    "bf16": "products multiply in bfloat16, sums and all else are in float",
}


def verify_command(
    context: typer.Context,
    model: ModelOrArtifact,
    against: Annotated[
        str,
        typer.Option("--against", help="onnxruntime, torch or interpreter; by default what fits."),
    ] = "",
    source: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads it at run time)
        typer.Option("--model", metavar="MODEL", help="The model that an artifact was made from."),
    ] = None,
    shape: ShapeOption = None,
    tolerance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--tolerance",
            min=0,
            help="Greatest difference per magnitude, at least 1; by default that of the precision.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random inputs.")] = 0,
    target: TargetOption = "cpu",
    pipeline: PipelineOption = "default",
    precision: PrecisionOption = "f32",
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare outputs with a reference on random inputs; exit code 6 over tolerance."""
    from dfcompiler.cli.subject import open_subject
    from dfcompiler.reference.difference import compare
    from dfcompiler.reference.sampling import sample_inputs

    session: Session = context.obj
    subject = open_subject(session, model, source, target, pipeline, precision)
    if tolerance is None:
        tolerance = _TOLERANCES[subject.precision]
    sizes = subject.sizes(parse_shapes(shape))
    inputs = sample_inputs(subject.program, sizes, seed)
    chosen = against or subject.default_reference()
    with session.working(f"running {chosen}"):
        expected = subject.reference(chosen, sizes)(inputs)
    found = subject.run(inputs, sizes)
    try:
        differences = compare(found, _named(expected, list(found)))
    except (KeyError, ValueError) as error:
        raise ModelError(f"the outputs do not correspond to those of {chosen}: {error}") from error
    over = [d for d in differences if not d.max_abs <= tolerance * max(1.0, d.magnitude)]
    data = {
        "command": "verify",
        "against": chosen,
        "sizes": sizes,
        "seed": seed,
        "precision": subject.precision,
        "tolerance": tolerance,
        "ok": not over,
        "outputs": [asdict(d) for d in differences],
    }
    session.emit(form, data, *_text(data))
    if over:
        worst = max(over, key=lambda d: d.max_abs)
        raise ToleranceError(
            f"{worst.name} differs from {chosen} by {worst.max_abs:.3g}; expected at most "
            f"{tolerance * max(1.0, worst.magnitude):.3g}"
        )


def _named(expected: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """A reference's outputs by our names; torch knows positions only."""
    if set(expected) == set(names):
        return expected
    if len(expected) != len(names):
        raise UsageError(f"the reference has {len(expected)} outputs, the model {len(names)}")
    return dict(zip(names, expected.values(), strict=True))


def _text(data: dict[str, Any]) -> list[Any]:
    sizes = ", ".join(f"{name} = {size}" for name, size in data["sizes"].items())
    table = Table("output", "max abs", "max rel", "magnitude", "values", box=None)
    for one in data["outputs"]:
        figures = (f"{one[key]:.3g}" for key in ("max_abs", "max_rel", "magnitude"))
        table.add_row(one["name"], *figures, f"{one['elements']:,}")
    verdict = "within" if data["ok"] else "OVER"
    where = f" at {sizes}" if sizes else ""
    policy = _POLICIES[data["precision"]]
    return [
        f"against {data['against']}{where}: {verdict} the tolerance of {data['tolerance']:g}; "
        f"{policy}",
        table,
    ]
