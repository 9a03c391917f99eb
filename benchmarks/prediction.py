"""Predicted against measured time of every kernel, over models that the calibration never saw.

The time model is calibrated on made-up encoders first, then MiniLM and BERT-base are compiled to
measure their operators, and everything is run in turns. An operator's error is the distance of the
predicted from the measured time, as a share of the measured one.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dfcompiler.analysis.machine import Machine
    from dfcompiler.ir import Program
    from dfcompiler.reference.calibration import Case, Measured
    from dfcompiler.runtime import Model

SHAPES = ((1, 16), (1, 128), (8, 128))


def main() -> None:
    """Calibrates, measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("build/prediction"))
    parser.add_argument("--build-only", action="store_true", help="export and compile, no timing")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when libgomp is loaded

    from benchmarks import record
    from dfcompiler.analysis.machine import Machine
    from dfcompiler.reference.calibration import (
        fit,
        measure_cases,
        prepared,
        with_stream_rates,
    )
    from dfcompiler.target import parse_target

    machine = Machine.nominal(parse_target("cpu"), options.threads)
    made_up = prepared(machine, _compiler(options.folder))
    ours = _models(options.folder)
    if options.build_only:
        return
    names = [name for name, _ in ours]
    measured = measure_cases([*made_up, *(case for _, case in ours)], options.rounds)
    known, unseen = measured[: len(made_up)], measured[len(made_up) :]
    machine = with_stream_rates(machine, known)
    machine = replace(machine, weights=fit(s for one in known for s in one.samples(machine)))
    rows = [
        {"model": name, "sizes": dict(one.sizes), **_errors(one, machine)}
        for name, one in zip(names, unseen, strict=True)
    ]
    errors = [error for row in rows for error in row.pop("errors")]
    data = {
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": record.machine(),
        "median_error": float(np.median(errors)),
        "l3_gbps": machine.l3_rate * 1e-9,
        "memory_gbps": machine.memory_rate * 1e-9,
        "weights": machine.weights,
        "cases": rows,
    }
    record.write("prediction", data, _text(data))


def _compiler(folder: Path) -> Callable[[Program], Model]:
    """Compiles the made-up encoders into `folder`, or loads what is there."""
    import dfcompiler

    numbers = iter(range(1000))

    def compile_program(program: Program) -> Model:
        place = folder / f"encoder{next(numbers)}.dfc"
        if place.is_dir():
            return dfcompiler.load(place)
        return dfcompiler.compile(program, place, profile=True)

    return compile_program


def _models(folder: Path) -> list[tuple[str, Case]]:
    """MiniLM and BERT-base at every shape, compiled to measure their operators."""
    import dfcompiler
    from dfcompiler.reference.calibration import lowered_program
    from models import bert_base, minilm

    cases: list[tuple[str, Case]] = []
    for name, module in (("MiniLM", minilm), ("BERT-base", bert_base)):
        place = folder / f"{name}.dfc"
        if not place.is_dir():
            source = folder / f"{name}.onnx"
            if not source.is_file():
                module.export_onnx(source)
            dfcompiler.compile(source, place, profile=True).close()
        model = dfcompiler.load(place)
        program = lowered_program(model.path)
        names = [symbol.name for symbol in program.symbols]
        cases += [
            (name, (model, program, dict(zip(names, shape, strict=True)))) for shape in SHAPES
        ]
    return cases


def _errors(measured: Measured, machine: Machine) -> dict[str, Any]:
    """The relative error of every operator, and their medians by family."""
    from dfcompiler.analysis.time_model import predict

    families: dict[str, list[float]] = defaultdict(list)
    predicted_s = measured_s = 0.0
    for sample in measured.samples(machine):
        seconds = predict(sample.family, sample.features, machine)
        families[sample.family] += [abs(seconds / sample.seconds - 1)] * sample.runs
        predicted_s += seconds * sample.runs
        measured_s += sample.seconds * sample.runs
    errors = [error for values in families.values() for error in values]
    return {
        "kernels": len(errors),
        "median_error": float(np.median(errors)),
        "upper_decile_error": float(np.quantile(errors, 0.9)),
        "predicted_ms": predicted_s * 1e3,
        "measured_ms": measured_s * 1e3,
        "by_family": {name: float(np.median(values)) for name, values in families.items()},
        "errors": errors,
    }


def _text(data: Mapping[str, Any]) -> str:
    from benchmarks import record

    header = ("model", "batch × tokens", "kernels", "measured ms", "predicted ms", "median error")
    families = ("packed product", "attention", "rows", "elements")
    rows = [
        (
            row["model"],
            "×".join(map(str, row["sizes"].values())),
            row["kernels"],
            f"{row['measured_ms']:.2f}",
            f"{row['predicted_ms']:.2f}",
            f"{row['median_error']:.1%}",
            *(f"{row['by_family'].get(name, float('nan')):.0%}" for name in families),
        )
        for row in data["cases"]
    ]
    return (
        "# Predicted and measured time of kernels\n\n"
        f"{record.machine_line(data['machine'])}\n"
        f"{data['threads']} threads, {data['rounds']} rounds, all programs in turns. The model is "
        "calibrated on made-up encoders of other widths; sums are over all operators.\n\n"
        f"Median error over all kernels: **{data['median_error']:.1%}**.\n\n"
        + record.markdown_table((*header, *families), rows)
    )


if __name__ == "__main__":
    main()
