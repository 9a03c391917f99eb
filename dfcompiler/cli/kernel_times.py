"""The table of ``dfc bench --per-kernel``: measured times of kernels beside predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dfcompiler.runtime import Model


def kernel_times(
    model: Model, sizes: Mapping[str, int], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each operator of a profiled artifact that runs, those that take longest first.

    Predictions come from the nominal rates of this machine; nothing of them was measured here.

    Args:
        model: a model that measures its operators.
        sizes: a value for every symbol.
        threads: of a call.
        rounds: calls whose lower quartile counts.

    Raises:
        UsageError: if the artifact was not compiled to measure.
    """
    from dfcompiler.analysis.machine import Machine
    from dfcompiler.analysis.program_time import program_times
    from dfcompiler.reference.calibration import lowered_program, measure_cases
    from dfcompiler.target import parse_target

    model.set_threads(threads)
    program = lowered_program(model.path)
    (measured,) = measure_cases([(model, program, sizes)], max(2, rounds))
    machine = Machine.nominal(parse_target(model.manifest["target"]["name"]), threads)
    predicted = [
        time for time in program_times(program, sizes, machine) if not time.op.attr("alias", False)
    ]
    rows = [
        {
            "kernel": one.kind,
            "result": one.result,
            "source": one.source,
            "runs": time.runs,
            "measured_us": seconds * 1e6,
            "predicted_us": time.seconds * 1e6,
        }
        for one, time, seconds in zip(
            model.operator_times, predicted, measured.seconds, strict=True
        )
    ]
    return sorted(rows, key=lambda row: -row["measured_us"])


def kernel_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as a table, with each kernel's share of all."""
    total = sum(row["measured_us"] for row in rows) or 1.0
    columns = (
        "kernel",
        "result",
        "runs",
        "measured µs",
        "of all",
        "predicted µs",
        "predicted / measured",
        "from",
    )
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        ratio = row["predicted_us"] / row["measured_us"] if row["measured_us"] else float("nan")
        table.add_row(
            row["kernel"],
            row["result"],
            str(row["runs"]),
            f"{row['measured_us']:.1f}",
            f"{row['measured_us'] / total:.1%}",
            f"{row['predicted_us']:.1f}",
            f"{ratio:.2f}",
            row["source"],
        )
    return table
