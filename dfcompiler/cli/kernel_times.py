"""The table of ``dfc bench --per-kernel``: measured times of kernels beside predicted ones.

On a GPU a time is that between two events on the stream: the operator's kernels, the gaps in front
of them and what the stream waited for the host, which is most of it where kernels are short; events
tell times apart to half a microsecond. Shares are of the rates in the target's description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dfcompiler.runtime import Model

if TYPE_CHECKING:
    from dfcompiler.ir import DType, Program
    from dfcompiler.target import CudaTarget


def kernel_times(
    model: Model, sizes: Mapping[str, int], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each operator of a profiled artifact that runs, those that take longest first.

    Predictions come from the nominal rates of the target; nothing of them was measured here.

    Args:
        model: a model that measures its operators.
        sizes: a value for every symbol.
        threads: of a call; nothing on a GPU.
        rounds: calls whose lower quartile counts.

    Raises:
        UsageError: if the artifact was not compiled to measure.
    """
    from dfcompiler.analysis.machine import Machine
    from dfcompiler.analysis.program_time import program_times
    from dfcompiler.reference.calibration import lowered_program, measure_cases
    from dfcompiler.target import CpuTarget, CudaTarget, parse_target

    target = parse_target(model.manifest["target"]["name"])
    if isinstance(target, CpuTarget):
        model.set_threads(threads)
    program = lowered_program(model.path)
    (measured,) = measure_cases([(model, program, sizes)], max(2, rounds))
    machine = Machine.nominal(target, threads)
    predicted = [
        time for time in program_times(program, sizes, machine) if not time.op.attr("alias", False)
    ]
    shares: list[dict[str, float]] = [{} for _ in predicted]
    if isinstance(target, CudaTarget):
        shares = _shares(program, sizes, target, measured.seconds)
    rows = [
        {
            "kernel": one.kind,
            "result": one.result,
            "source": one.source,
            "runs": time.runs,
            "measured_us": seconds * 1e6,
            "predicted_us": time.seconds * 1e6,
            **share,
        }
        for one, time, seconds, share in zip(
            model.operator_times, predicted, measured.seconds, shares, strict=True
        )
    ]
    return sorted(rows, key=lambda row: -row["measured_us"])


def _shares(
    program: Program, sizes: Mapping[str, int], target: CudaTarget, seconds: Sequence[float]
) -> list[dict[str, float]]:
    """What each kernel reached of a GPU's rates: bytes of its schedule, and arithmetic."""
    from dfcompiler.analysis.cost import op_costs

    costs = [
        cost
        for cost in op_costs(program, sizes, target.l2_bytes)
        if not cost.op.attr("alias", False)
    ]
    return [
        {
            "memory_share": _rate(cost.moved_bytes, elapsed_s) / target.memory_rate,
            "peak_share": _rate(cost.flops, elapsed_s) / peak_rate(cost.op.type.dtype, target),
        }
        for cost, elapsed_s in zip(costs, seconds, strict=True)
    ]


def peak_rate(dtype: DType, target: CudaTarget) -> float:
    """Operations a second: 16-bit types have the tensor cores, sums in f32."""
    return target.tensor_rate if dtype.bytes == 2 else target.float_rate


def _rate(amount: int, elapsed_s: float) -> float:
    return amount / elapsed_s if elapsed_s > 0 else float("nan")


def kernel_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as a table, with each kernel's share of all."""
    total = sum(row["measured_us"] for row in rows) or 1.0
    on_gpu = bool(rows) and "memory_share" in rows[0]
    columns = (
        "kernel",
        "result",
        "runs",
        "measured µs",
        "of all",
        "predicted µs",
        "predicted / measured",
        *(("of memory rate", "of peak") if on_gpu else ()),
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
            *([f"{row['memory_share']:.0%}", f"{row['peak_share']:.1%}"] if on_gpu else ()),
            row["source"],
        )
    return table
