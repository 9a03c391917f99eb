"""MiniLM against torch eager and ONNX Runtime: interleaved, same inputs, outputs compared first."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = ((8, 128), (1, 128), (1, 16))
TOLERANCE = 1e-5
BUILD = Path("build")


def main() -> None:
    """Measures every shape and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when libgomp is loaded

    from benchmarks import record
    from dfcompiler import import_model

    model = _exported()
    program = import_model(model)
    contestants = _contestants(model, options.threads)
    cases = [
        _case(program, contestants, shape, options.rounds, options.threads) for shape in SHAPES
    ]
    data = {
        "model": "all-MiniLM-L6-v2, fp32, padding masks",
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": record.machine(),
        "cases": cases,
    }
    record.write("minilm", data, _text(data))


def _exported() -> Path:
    from models import minilm

    path = BUILD / "minilm.onnx"
    return path if path.is_file() else minilm.export_onnx(path)


def _contestants(model: Path, threads: int) -> dict[str, Callable[[dict[str, np.ndarray]], Any]]:
    import torch

    import dfcompiler
    from dfcompiler.reference.runners import onnxruntime, torch_module
    from models import minilm

    torch.set_num_threads(threads)
    ours = dfcompiler.compile(model, out=BUILD / "bench.dfc", force=True)
    ours.set_threads(threads)
    return {
        "dfcompiler": ours.run,
        "torch eager": torch_module(minilm.build()),
        "onnxruntime": onnxruntime(model, threads),
    }


def _case(
    program: Any,
    contestants: dict[str, Callable[[dict[str, np.ndarray]], Any]],
    shape: tuple[int, int],
    rounds: int,
    threads: int,
) -> dict[str, Any]:
    from dfcompiler.analysis.cost import measure
    from dfcompiler.reference.ceilings import measure_fma_gflops
    from dfcompiler.reference.timing import interleave, ratio
    from models import minilm

    batch, sequence = shape
    inputs = minilm.random_inputs(batch, sequence)
    hidden = {name: next(iter(run(inputs).values())) for name, run in contestants.items()}
    errors = {name: float(np.abs(h - hidden["torch eager"]).max()) for name, h in hidden.items()}
    if errors["dfcompiler"] > TOLERANCE:
        raise SystemExit(f"{shape}: differs from torch by {errors['dfcompiler']:.3g}")
    before = measure_fma_gflops(threads)
    timings = interleave({name: partial(run, inputs) for name, run in contestants.items()}, rounds)
    ceiling = (before + measure_fma_gflops(threads)) / 2
    gflop = measure(program, {"batch": batch, "sequence": sequence}).flops * 1e-9
    rows = []
    for one in timings:
        against = ratio(timings[0], one)
        rows.append(
            {
                "name": one.name,
                "median_ms": one.median_s * 1e3,
                "spread": one.spread,
                "times_ours": [against.low, against.median, against.high],
                "gflops": gflop / one.median_s,
                "share_of_ceiling": gflop / one.median_s / ceiling,
                "max_abs_difference_from_torch": errors[one.name],
            }
        )
    return {
        "batch": batch,
        "sequence": sequence,
        "gflop": gflop,
        "ceiling_gflops": ceiling,
        "results": rows,
    }


def _text(data: dict[str, Any]) -> str:
    from benchmarks import record

    header = (
        "batch × sequence",
        "",
        "median ms",
        "spread",
        "times ours (quartiles)",
        "GFLOP/s",
        "of ceiling",
        "max abs from torch",
    )
    rows = []
    for case in data["cases"]:
        for row in case["results"]:
            low, middle, high = row["times_ours"]
            rows.append(
                (
                    f"{case['batch']} × {case['sequence']}",
                    row["name"],
                    f"{row['median_ms']:.2f}",
                    f"{row['spread']:.0%}",
                    f"{middle:.2f} ({low:.2f}–{high:.2f})",
                    f"{row['gflops']:.0f}",
                    f"{row['share_of_ceiling']:.0%}",
                    f"{row['max_abs_difference_from_torch']:.1e}",
                )
            )
    ceiling = ", ".join(f"{case['ceiling_gflops']:.0f}" for case in data["cases"])
    return (
        f"# {data['model']}\n\n"
        f"{data['threads']} threads, {data['rounds']} interleaved rounds a shape. "
        f"{record.machine_line(data['machine'])}"
        f"Measured fp32 multiply-add ceiling of each case: {ceiling} GFLOP/s.\n\n"
        + record.markdown_table(header, rows)
    )


if __name__ == "__main__":
    main()
