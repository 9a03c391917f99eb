"""``dfc explain``: what one pass did to a model, and where and why it declined."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from dfcompiler.cli.options import (
    FormatOption,
    ModelArgument,
    PipelineOption,
    PrecisionOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
)
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import UsageError


def explain_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PASS", help="A pass; dfc passes lists them.")],
    model: ModelArgument,
    shape: ShapeOption = None,
    target: TargetOption = "cpu",
    pipeline: PipelineOption = "default",
    precision: PrecisionOption = "f32",
    form: FormatOption = Format.TEXT,
) -> None:
    """Show what a pass did to a model, and where and why it declined."""
    from dfcompiler import api
    from dfcompiler.pipeline import Pipeline

    session: Session = context.obj
    machine = api.machine_of(target)
    api.Options(target=target, pipeline=pipeline, precision=precision).check()
    whole = api.resolve_pipeline(pipeline, machine, precision)
    last = position(whole, name)
    with session.working("importing the model"):
        program = api.specialize(api.import_model(model), parse_shapes(shape))
    session.program = program
    with session.working(f"running passes up to {name}"):
        before = Pipeline(whole.passes[:last]).run(program).program
        result = Pipeline(whole.passes[: last + 1]).run(program)
    record = result.records[-1]
    old, new = _kinds(before), _kinds(result.program)
    changes = {
        kind: [old[kind], new[kind]] for kind in sorted({*old, *new}) if old[kind] != new[kind]
    }
    declined = [
        {"kind": d.op.kind, "result": d.op.result, "source": d.op.source, "reason": d.reason}
        for d in record.declined
    ]
    data = {
        "command": "explain",
        "pass": name,
        "position": last + 1,
        "changed": record.changed,
        "seconds": record.seconds,
        "claims": list(whole.passes[last].claims),
        "operators": changes,
        "probes": [
            {"symbols": dict(probe), "before": asdict(b), "after": asdict(a)}
            for probe, b, a in zip(result.probes, record.before, record.after, strict=True)
        ],
        "declined": declined,
        "chosen": [str(choice) for choice in record.chosen],
    }
    session.emit(form, data, *_text(data))


def position(pipeline: Any, name: str) -> int:
    """The index of the first pass called `name`.

    Raises:
        UsageError: if the pipeline has none.
    """
    names = [one.name for one in pipeline.passes]
    if name not in names:
        raise UsageError(
            f"the pipeline has no pass {name}",
            hint=f"its passes are: {', '.join(dict.fromkeys(names))}",
        )
    return names.index(name)


def _kinds(program: Any) -> Counter[str]:
    return Counter(op.kind for op in program.ops())


def _text(data: dict[str, Any]) -> list[Any]:
    verb = "changed the program" if data["changed"] else "changed nothing"
    parts: list[Any] = [
        f"{data['pass']} (pass {data['position']}) {verb} in {data['seconds'] * 1e3:.0f} ms"
    ]
    if data["operators"]:
        table = Table("operator", "before", "after", box=None, header_style="bold")
        for kind, (old, new) in data["operators"].items():
            table.add_row(kind, str(old), str(new))
        parts.append(table)
    for probe in data["probes"]:
        sizes = ", ".join(f"{name} = {size}" for name, size in probe["symbols"].items())
        table = Table("metric", "before", "after", box=None, header_style="bold")
        for metric, old in probe["before"].items():
            new = probe["after"][metric]
            table.add_row(metric, _number(old), _number(new) if new != old else "=")
        parts += [f"at {sizes}" if sizes else "at the model's sizes", table]
    parts.append(f"declined at {len(data['declined'])} sites" if data["declined"] else "")
    parts += [
        f"  {d['kind']} {d['result']}"
        + (f" from {d['source']}" if d["source"] else "")
        + f": {d['reason']}"
        for d in data["declined"]
    ]
    parts.append(f"chosen at {len(data['chosen'])} sites" if data["chosen"] else "")
    parts += [f"  {choice}" for choice in data["chosen"]]
    return [part for part in parts if part != ""]


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
