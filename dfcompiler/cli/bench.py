"""``dfc bench``: own time, the share of the machine's ceiling, and peers in the same run."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.table import Table

from dfcompiler.cli.bench_gpu import bench_on_gpu, gpu_of
from dfcompiler.cli.kernel_times import kernel_table, kernel_times
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

_TOLERANCES = {"f32": 1e-4, "bf16": 0.05}
"""Greatest difference of a peer's outputs from ours, per magnitude, at least 1."""


def bench_command(
    context: typer.Context,
    model: ModelOrArtifact,
    shape: ShapeOption = None,
    against: Annotated[
        str,
        typer.Option(
            "--against", metavar="PEERS", help="onnxruntime,openvino,torch,inductor: peers to beat."
        ),
    ] = "",
    source: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads it at run time)
        typer.Option("--model", metavar="MODEL", help="The model that an artifact was made from."),
    ] = None,
    module: Annotated[
        str,
        typer.Option(
            "--module",
            metavar="PACKAGE:FUNCTION",
            help="What builds the model's torch module, for torch and inductor.",
        ),
    ] = "",
    threads: ThreadsOption = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=3, help="How many are timed.")] = 15,
    target: TargetOption = "cpu",
    pipeline: PipelineOption = "default",
    precision: Annotated[
        str, typer.Option("--precision", help="f32; bf16 for us and for peers that can.")
    ] = "f32",
    per_kernel: Annotated[
        bool,
        typer.Option(
            "--per-kernel", help="What each kernel takes; an artifact needs compile --profile."
        ),
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Time a model, interleaved with peers on the same inputs; exit code 7 if one is faster.

    On a GPU it is timed alone: inputs lie there, a call is waited for.
    """
    from dfcompiler.analysis.cost import measure
    from dfcompiler.cli.subject import open_subject
    from dfcompiler.reference.engines import Entry, check_peers
    from dfcompiler.reference.sampling import sample_inputs
    from dfcompiler.reference.timing import race
    from dfcompiler.reference.worker import Worker

    session: Session = context.obj
    gpu = gpu_of(model, target)
    if gpu is not None:
        if against or module:
            raise UsageError(
                f"peers of this command run on the CPU; the target is {gpu.name}",
                hint="benchmarks/gpu.py times models beside those of a GPU",
            )
        if threads:
            raise UsageError(f"{gpu.name} is a GPU; there are no threads to set")
        subject = open_subject(session, model, source, target, pipeline, precision, per_kernel)
        bench_on_gpu(session, subject, gpu, parse_shapes(shape), rounds, per_kernel, form)
        return
    threads = threads or host_cores()
    peers = [name.strip() for name in against.split(",") if name.strip()]
    check_peers(peers, precision)
    subject = open_subject(session, model, source, target, pipeline, precision, profile=per_kernel)
    if per_kernel:
        _ = subject.model.operator_times  # refuses an artifact without, before anything is timed
    sizes = subject.sizes(parse_shapes(shape))
    inputs = sample_inputs(subject.program, sizes)
    shapes = {name: array.shape for name, array in inputs.items()}
    models = {"dfcompiler": str(subject.model.path)}
    models |= {name: _peer_model(name, subject.source, module) for name in peers}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(Entry(name, path, threads, shapes, sizes, precision)))
            for name, path in models.items()
        }
        with session.working(f"loading {', '.join(workers)}"):
            outputs = {name: worker.outputs(inputs) for name, worker in workers.items()}
        _check_outputs(outputs, _TOLERANCES[precision])
        with session.working(f"timing {rounds} rounds"):
            found = race(workers, subject.model.manifest["target"]["name"], rounds)
    gflop = measure(subject.program, sizes).flops * 1e-9
    data = {
        "command": "bench",
        "sizes": sizes,
        "threads": threads,
        "rounds": rounds,
        "precision": precision,
        "gflop": gflop,
        **result_data(found, gflop, precision),
    }
    text = _text(data)
    if per_kernel:
        data["kernels"] = kernel_times(subject.model, sizes, threads, rounds)
        text.append(kernel_table(data["kernels"]))
    session.emit(form, data, *text)
    faster = [row for row in data["results"][1:] if row["times_ours"] < 1]
    if faster:
        listed = ", ".join(f"{row['name']} ({row['times_ours']:.2f} of our time)" for row in faster)
        raise SlowerError(f"slower than {listed}")


def result_data(found: Any, gflop: float, precision: str) -> dict[str, Any]:
    """What a race gave: the ceilings, and a row for every contestant, ours first."""
    from dfcompiler.reference.timing import ratio

    lowered = precision == "bf16" and found.rates.bf16_gflops
    ceiling = found.rates.bf16_gflops if lowered else found.rates.fma_gflops
    rows = []
    for one in found.timings:
        against = ratio(found.timings[0], one)
        rows.append(
            {
                "name": one.name,
                "median_ms": one.median_s * 1e3,
                "spread": one.spread,
                "gflops": gflop / one.median_s,
                "share_of_ceiling": gflop / one.median_s / ceiling,
                "share_of_tile": gflop / one.median_s / found.rates.tile_gflops,
                "times_ours": against.median,
                "times_ours_quartiles": [against.low, against.high],
            }
        )
    return {
        "ceiling_gflops": ceiling,
        "tile_gflops": found.rates.tile_gflops,
        "results": rows,
    }


def _peer_model(peer: str, source: Path | None, module: str) -> str:
    if module and peer in ("torch", "inductor"):
        return module
    if source is None:
        raise UsageError(
            f"{peer} needs the model that the artifact was made from",
            hint="name it with --model MODEL",
        )
    return str(source)


def _check_outputs(outputs: dict[str, dict[str, np.ndarray]], tolerance: float) -> None:
    """Peers must compute the same before their times say anything."""
    from dfcompiler.reference.difference import compare

    ours = outputs["dfcompiler"]
    for name, found in outputs.items():
        expected = dict(zip(ours, found.values(), strict=True))
        for one in compare(ours, expected):
            if not one.max_abs <= tolerance * max(1.0, one.magnitude):
                raise ToleranceError(f"{one.name} differs from {name} by {one.max_abs:.3g}")


def _text(data: dict[str, Any]) -> list[Any]:
    sizes = ", ".join(f"{name} = {size}" for name, size in data["sizes"].items())
    columns = ("", "median ms", "spread", "GFLOP/s", "of ceiling", "of L1-fed tile", "times ours")
    table = Table(*columns, box=None, header_style="bold")
    for row in data["results"]:
        low, high = row["times_ours_quartiles"]
        table.add_row(
            row["name"],
            f"{row['median_ms']:.3f}",
            f"{row['spread']:.0%}",
            f"{row['gflops']:.1f}",
            f"{row['share_of_ceiling']:.0%}",
            f"{row['share_of_tile']:.0%}",
            f"{row['times_ours']:.2f} ({low:.2f}–{high:.2f})",
        )
    return [
        f"{sizes or 'fixed sizes'}; {data['precision']}, {data['threads']} threads, "
        f"{data['rounds']} rounds, {data['gflop']:.3f} GFLOP a call, ceiling "
        f"{data['ceiling_gflops']:.0f} GFLOP/s, L1-fed fp32 tile {data['tile_gflops']:.0f}",
        table,
    ]
