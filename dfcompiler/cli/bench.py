"""``dfc bench``: own time, the share of the machine's ceiling, and peers in the same run."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.table import Table

from dfcompiler.cli.options import (
    FormatOption,
    ModelOrArtifact,
    PipelineOption,
    ShapeOption,
    TargetOption,
    ThreadsOption,
    parse_shapes,
)
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import SlowerError, ToleranceError, UsageError
from dfcompiler.target import host_cores


def bench_command(
    context: typer.Context,
    model: ModelOrArtifact,
    shape: ShapeOption = None,
    against: Annotated[
        str, typer.Option("--against", metavar="PEERS", help="onnxruntime,torch: peers to beat.")
    ] = "",
    source: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads it at run time)
        typer.Option("--model", metavar="MODEL", help="The model that an artifact was made from."),
    ] = None,
    threads: ThreadsOption = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="How many are timed.")] = 15,
    target: TargetOption = "cpu",
    pipeline: PipelineOption = "default",
    form: FormatOption = Format.TEXT,
) -> None:
    """Time a model, interleaved with peers on the same inputs; exit code 7 if one is faster."""
    threads = threads or host_cores()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by libgomp when it is loaded
    from dfcompiler.analysis.cost import measure
    from dfcompiler.cli.subject import open_subject
    from dfcompiler.reference.ceilings import measure_fma_gflops
    from dfcompiler.reference.sampling import sample_inputs
    from dfcompiler.reference.timing import interleave, ratio

    session: Session = context.obj
    peers = [name.strip() for name in against.split(",") if name.strip()]
    unknown = [name for name in peers if name not in ("onnxruntime", "torch")]
    if unknown:
        raise UsageError(
            f"bench knows no peer {', '.join(unknown)}", hint="peers are: onnxruntime, torch"
        )
    subject = open_subject(session, model, source, target, pipeline)
    sizes = subject.sizes(parse_shapes(shape))
    inputs = sample_inputs(subject.program, sizes)
    runners = {name: subject.reference(name, sizes, threads) for name in peers}
    _check_outputs(subject.run(inputs, sizes), {n: run(inputs) for n, run in runners.items()})
    ceiling = measure_fma_gflops(threads)
    contestants = {"dfcompiler": partial(subject.run, inputs, sizes)}
    contestants |= {name: partial(run, inputs) for name, run in runners.items()}
    with session.working(f"timing {rounds} rounds"):
        timings = interleave(contestants, rounds)
    gflop = measure(subject.program, sizes).flops * 1e-9
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "median_ms": one.median_s * 1e3,
            "spread": one.spread,
            "gflops": gflop / one.median_s,
            "share_of_ceiling": gflop / one.median_s / ceiling,
            "times_ours": ratio(timings[0], one).median,
        }
        for one in timings
    ]
    data = {
        "command": "bench",
        "sizes": sizes,
        "threads": threads,
        "rounds": rounds,
        "gflop": gflop,
        "ceiling_gflops": ceiling,
        "results": rows,
    }
    session.emit(form, data, *_text(data))
    faster = [row for row in rows[1:] if row["times_ours"] < 1]
    if faster:
        listed = ", ".join(f"{row['name']} ({row['times_ours']:.2f} of our time)" for row in faster)
        raise SlowerError(f"slower than {listed}")


def _check_outputs(ours: dict[str, Any], theirs: dict[str, dict[str, Any]]) -> None:
    """Peers must compute the same before their times say anything."""
    from dfcompiler.reference.difference import compare

    for name, outputs in theirs.items():
        expected = dict(zip(ours, outputs.values(), strict=True))
        for one in compare(ours, expected):
            if not one.max_abs <= 1e-4 * max(1.0, one.magnitude):
                raise ToleranceError(f"{one.name} differs from {name} by {one.max_abs:.3g}")


def _text(data: dict[str, Any]) -> list[Any]:
    sizes = ", ".join(f"{name} = {size}" for name, size in data["sizes"].items())
    columns = ("", "median ms", "spread", "GFLOP/s", "of ceiling", "times ours")
    table = Table(*columns, box=None, header_style="bold")
    for row in data["results"]:
        table.add_row(
            row["name"],
            f"{row['median_ms']:.3f}",
            f"{row['spread']:.0%}",
            f"{row['gflops']:.1f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['times_ours']:.2f}",
        )
    return [
        f"{sizes or 'fixed sizes'}; {data['threads']} threads, {data['rounds']} rounds, "
        f"{data['gflop']:.3f} GFLOP a call, ceiling {data['ceiling_gflops']:.0f} GFLOP/s",
        table,
    ]
