"""A compilation as plain data, for ``report.json``, for JSON output and for tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.pipeline import Chosen, PipelineResult
from dfcompiler.report import SCHEMA_VERSION
from dfcompiler.report.kernels import kernel_rows


def pass_rows(result: PipelineResult) -> list[dict[str, Any]]:
    """One row for the import and one for every pass, with metrics at the last probe."""
    rows: list[dict[str, Any]] = []
    if result.records:
        first = asdict(result.records[0].before[-1])
        rows.append({"pass": "import", "seconds": None, "changed": True, "declined": [], **first})
    for record in result.records:
        rows.append(
            {
                "pass": record.name,
                "seconds": record.seconds,
                "changed": record.changed,
                "declined": [
                    {"kind": d.op.kind, "result": d.op.result, "source": d.op.source}
                    | {"reason": d.reason}
                    for d in record.declined
                ],
                "chosen": [_chosen(c) for c in record.chosen],
                **asdict(record.after[-1]),
            }
        )
    return rows


def _chosen(found: Chosen) -> dict[str, Any]:
    fields = {"chosen": found.chosen, "runner_up": found.runner_up}
    prices = {"runner_up_s": found.runner_up_s, "naive_s": found.naive_s}
    op = found.op
    return {"kind": op.kind, "result": op.result, "source": op.source, **fields, **prices}


def kernel_counts(kernels: Iterable[KernelRecord]) -> dict[str, int]:
    """How often each implementation was chosen, the most frequent first."""
    return dict(Counter(record.implementation for record in kernels).most_common())


def report_data(result: PipelineResult, kernels: Iterable[KernelRecord]) -> dict[str, Any]:
    """The contents of ``report.json``; without times, so that equal compiles give equal bytes."""
    records = tuple(kernels)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in pass_rows(result)]
    return {
        "schema_version": SCHEMA_VERSION,
        "symbols": dict(result.probes[-1]),
        "passes": rows,
        "kernels": kernel_counts(records),
        "operators": kernel_rows(result.program, records, result.probes[-1]),
    }
