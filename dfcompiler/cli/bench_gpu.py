"""``dfc bench`` on a GPU: the model alone, against the rates of the target's description."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from dfcompiler.cli.artifact import is_artifact
from dfcompiler.cli.kernel_times import kernel_table, kernel_times, peak_rate
from dfcompiler.cli.session import Format, Session
from dfcompiler.target import CudaTarget, parse_target


def gpu_of(path: Path, target: str) -> CudaTarget | None:
    """The GPU that an artifact is for, or that a model is to be compiled for; None for a CPU."""
    if is_artifact(path):
        try:
            target = str(json.loads((path / "manifest.json").read_text())["target"]["name"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # loading it says what is wrong
    found = parse_target(target)
    return found if isinstance(found, CudaTarget) else None


def bench_on_gpu(
    session: Session,
    subject: Any,
    gpu: CudaTarget,
    given: Mapping[str, Any],
    rounds: int,
    per_kernel: bool,
    form: Format,
) -> None:
    """Times a model whose inputs lie on the GPU, and its kernels if it measures them.

    Raises:
        DeviceError: if there is no GPU that runs it.
        UsageError: if its kernels are asked for and it does not measure them.
    """
    from dfcompiler.analysis.cost import measure
    from dfcompiler.reference.sampling import sample_inputs

    if per_kernel:
        _ = subject.model.operator_times  # refuses an artifact without, before anything is timed
    sizes = subject.sizes(given)
    inputs = sample_inputs(subject.program, sizes)
    with session.working(f"timing {rounds} rounds"):
        samples = _samples(subject.model, inputs, sizes, rounds)
    cost = measure(subject.program, sizes, gpu.l2_bytes)
    middle = median(samples)
    low, high = np.percentile(samples, (25, 75))
    data: dict[str, Any] = {
        "command": "bench",
        "target": gpu.name,
        "sizes": sizes,
        "rounds": rounds,
        "precision": subject.precision,
        "gflop": cost.flops * 1e-9,
        "moved_gb": cost.moved_bytes * 1e-9,
        "results": [
            {
                "name": "dfcompiler",
                "median_ms": middle * 1e3,
                "spread": float(high - low) / middle,
                "gflops": cost.flops * 1e-9 / middle,
                "share_of_peak": cost.flops / middle / _peak(subject, gpu),
                "share_of_memory_rate": cost.moved_bytes / middle / gpu.memory_rate,
            }
        ],
    }
    text = _text(data, gpu)
    if per_kernel:
        data["kernels"] = kernel_times(subject.model, sizes, 0, rounds)
        text.append(kernel_table(data["kernels"]))
    session.emit(form, data, *text)


def _samples(
    model: Any, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int], rounds: int
) -> list[float]:
    """Seconds of each call after three that do not count; each is waited for."""
    free = {symbol.name for symbol in model.signature.symbols if symbol.fixed_by is None}
    extra = {name: size for name, size in sizes.items() if name in free}
    there = {name: model.upload(name, array) for name, array in inputs.items()}
    samples = []
    for _ in range(rounds + 3):
        if model.signature.persistent:
            model.reset()
        started = time.perf_counter()
        model.run(there, **extra)
        model.synchronize()
        samples.append(time.perf_counter() - started)
    return samples[3:]


def _peak(subject: Any, gpu: CudaTarget) -> float:
    """Of what products multiply in, or of the outputs where these are narrower."""
    if subject.precision != "f32":
        return gpu.tensor_rate
    return max(peak_rate(output.type.dtype, gpu) for output in subject.program.outputs)


def _text(data: dict[str, Any], gpu: CudaTarget) -> list[Any]:
    sizes = ", ".join(f"{name} = {size}" for name, size in data["sizes"].items())
    columns = ("", "median ms", "spread", "GFLOP/s", "of peak", "of memory rate")
    table = Table(*columns, box=None, header_style="bold")
    for row in data["results"]:
        table.add_row(
            row["name"],
            f"{row['median_ms']:.3f}",
            f"{row['spread']:.0%}",
            f"{row['gflops']:.1f}",
            f"{row['share_of_peak']:.1%}",
            f"{row['share_of_memory_rate']:.1%}",
        )
    return [
        f"{sizes or 'fixed sizes'}; {data['target']}, {data['rounds']} rounds, inputs on the GPU, "
        f"{data['gflop']:.3f} GFLOP and {data['moved_gb']:.3f} GB a call; shares are of the data "
        f"sheet of an {gpu.device}",
        table,
    ]
