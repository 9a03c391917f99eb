"""``dfc inspect``: the program of a model or an artifact, before or after any pass."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dfcompiler.cli.options import (
    FormatOption,
    ModelOrArtifact,
    PipelineOption,
    ShapeOption,
    TargetOption,
    parse_shapes,
)
from dfcompiler.cli.session import Format, Session


def inspect_command(
    context: typer.Context,
    model: ModelOrArtifact,
    after: Annotated[
        str,
        typer.Option("--after", metavar="PASS", help="The program after this pass; import, final."),
    ] = "",
    shape: ShapeOption = None,
    target: TargetOption = "cpu",
    pipeline: PipelineOption = "default",
    bounds: Annotated[
        bool,
        typer.Option("--bounds", help="What every kernel must move, beside what it does move."),
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show a program: a model as imported, an artifact as compiled, or either after a pass."""
    from dfcompiler import api
    from dfcompiler.cli.artifact import is_artifact, read_snapshot
    from dfcompiler.ir import Program, show

    session: Session = context.obj
    if is_artifact(model):
        program: Program = read_snapshot(model, "" if after == "final" else after)
    else:
        with session.working("importing the model"):
            program = api.specialize(api.import_model(model), parse_shapes(shape))
        session.program = program
        if after not in ("", "import"):
            with session.working("running passes"):
                program = _after(program, after, target, pipeline)
    if bounds:
        _show_bounds(session, program, parse_shapes(shape), target, form)
        return
    form_json = form is Format.JSON
    data = program_data(program) if form_json else {}
    session.emit(form, {"command": "inspect", **data}, "" if form_json else show(program).rstrip())


def _show_bounds(session: Session, program: Any, shapes: Any, target: str, form: Format) -> None:
    from dfcompiler.analysis.io_bound.levels import kernel_bounds, levels_of
    from dfcompiler.analysis.machine import Machine
    from dfcompiler.pipeline import default_probes
    from dfcompiler.report.bounds import bound_rows, bound_table
    from dfcompiler.target import parse_cpu

    machine = Machine.nominal(parse_cpu(target))
    levels = levels_of(parse_cpu(target), machine)
    defaults = default_probes(program)[-1]
    symbols = {name: shapes.get(name, size) for name, size in defaults.items()}
    rows = bound_rows(kernel_bounds(program, symbols, levels, machine))
    data = {"command": "inspect", "symbols": symbols, "bounds": rows}
    session.emit(form, data, bound_table(rows, symbols))


def _after(program: Any, after: str, target: str, pipeline: str) -> Any:
    """The program once the pass `after` has run; the passes behind it do not run."""
    from dfcompiler import api
    from dfcompiler.cli.explain import position
    from dfcompiler.pipeline import Pipeline

    whole = api.resolve_pipeline(pipeline, api.machine_of(target))
    last = len(whole.passes) if after == "final" else position(whole, after) + 1
    return Pipeline(whole.passes[:last]).run(program).program


def program_data(program: Any) -> dict[str, Any]:
    """A program in JSON: what the text form says, in fields."""
    return {
        "program": program.name,
        "symbols": [{"name": s.name, "maximum": s.maximum} for s in program.symbols],
        "containers": [
            {
                "role": c.role.value,
                "name": c.name,
                **_type_data(c.type),
                **({"parts": list(c.parts)} if c.parts else {}),
            }
            for c in program.containers
        ],
        "body": [_block_data(block) for block in program.body],
    }


def _type_data(type: Any) -> dict[str, Any]:  # noqa: A002
    from dfcompiler.ir.dims import show_dim

    dims = [dim if isinstance(dim, int) else show_dim(dim) for dim in type.shape]
    return {"type": str(type), "dtype": type.dtype.value, "shape": dims}


def _block_data(block: Any) -> dict[str, Any]:
    from dfcompiler.ir import Branch, Loop
    from dfcompiler.ir.dims import show_dim

    match block:
        case Loop():
            return {
                "loop": block.name,
                "variable": block.variable,
                "start": show_dim(block.start),
                "stop": show_dim(block.stop),
                "until": block.until or None,
                "body": [_block_data(one) for one in block.body],
            }
        case Branch():
            return {
                "branch": block.name,
                "condition": block.condition,
                "then": [_block_data(one) for one in block.then],
                "else": [_block_data(one) for one in block.orelse],
            }
    return {"state": block.name, "ops": [_op_data(op) for op in block.ops]}


def _op_data(op: Any) -> dict[str, Any]:
    data = {
        "result": op.result,
        **_type_data(op.type),
        "kind": op.kind,
        "inputs": list(op.inputs),
        "attrs": {key: _attr_data(value) for key, value in op.attrs.items()},
        "source": op.source,
    }
    return {**data, "region": [_op_data(inner) for inner in op.region]} if op.region else data


def _attr_data(value: Any) -> Any:
    from dfcompiler.ir import DType
    from dfcompiler.ir.dims import show_dim

    match value:
        case tuple():
            return [_attr_data(one) for one in value]
        case DType():
            return value.value
        case bool() | int() | float() | str():
            return value
    return show_dim(value)
