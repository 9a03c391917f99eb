"""Bytes that one layer of BERT-base moves before and after fusion, as the schedules have it.

Before: the canonical program, every operator a kernel of its own. Products have the same packed
weights and the same tiles on both sides, so that the difference is fusion alone. A layer is what
the model with two layers moves more than the model with one. Nothing is timed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import record
from dfcompiler import api
from dfcompiler.analysis.cost import FAST_BYTES, measure, op_costs
from dfcompiler.ir import Op, Program
from dfcompiler.pipeline import assemble
from dfcompiler.target import parse_target

BUILD = Path("build")
APART = (
    *("canonicalize", "fold-constants", "canonicalize", "eliminate-common-subexpressions"),
    *("eliminate-dead-code", "pack-weights", "tile-for-io"),
)
"""The passes of the program before fusion."""

SHAPES = ((1, 16), (1, 128), (8, 128), (1, 512), (8, 512))
"""Batch and sequence."""

Layers = Mapping[int, Program]


def main() -> None:
    """Optimizes both programs at both depths and writes the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    target = parse_target("cpu")
    imported = {layers: api.import_model(_exported(layers)) for layers in (1, 2)}
    before = {n: assemble(APART, target).run(program).program for n, program in imported.items()}
    after = {n: api.optimize(program, target).program for n, program in imported.items()}
    data = {
        "model": "bert_base",
        "machine": record.machine(),
        "fast_bytes": FAST_BYTES,
        "rows": [_row(before, after, *shape) for shape in SHAPES],
    }
    record.write("moved_bytes", data, _text(data))


def _exported(layers: int) -> Path:
    path = BUILD / f"bert_base-{layers}.onnx"
    if path.is_file():
        return path
    from models import bert_base

    return bert_base.export_onnx(path, layers)


def _row(before: Layers, after: Layers, batch: int, sequence: int) -> dict[str, Any]:
    sizes = {"batch": batch, "sequence": sequence}
    counted = [_layer(programs, sizes) for programs in (before, after)]
    return {
        "batch": batch,
        "sequence": sequence,
        "weight_bytes": _weights(after),
        "before_bytes": counted[0].total(),
        "after_bytes": counted[1].total(),
        "ratio": counted[1].total() / counted[0].total(),
        "before": dict(counted[0].most_common()),
        "after": dict(counted[1].most_common()),
    }


def _layer(programs: Layers, sizes: Mapping[str, int]) -> Counter[str]:
    """Bytes of the second layer, by kind of operator."""
    found: Counter[str] = Counter()
    for layers, sign in ((1, -1), (2, 1)):
        for cost in op_costs(programs[layers], sizes):
            found[_kind(cost.op)] += sign * cost.moved_bytes
    return Counter({kind: moved for kind, moved in found.items() if moved})


def _kind(op: Op) -> str:
    return op.attr("kernel") if op.kind == "fused" else op.kind


def _weights(programs: Layers) -> int:
    sizes = {"batch": 1, "sequence": 1}
    one, two = (measure(programs[layers], sizes).weight_bytes for layers in (1, 2))
    return two - one


def _text(data: Mapping[str, Any]) -> str:
    header = ("batch × sequence", "weights MB", "before MB", "after MB", "after / before")
    rows = [
        (
            f"{row['batch']}×{row['sequence']}",
            f"{row['weight_bytes'] * 1e-6:.1f}",
            f"{row['before_bytes'] * 1e-6:.1f}",
            f"{row['after_bytes'] * 1e-6:.1f}",
            f"{row['ratio']:.2f}",
        )
        for row in data["rows"]
    ]
    kinds = [
        (f"{row['batch']}×{row['sequence']} {side}", _listed(row[side]))
        for row in data["rows"]
        if row["batch"] > 1 and row["sequence"] == 128
        for side in ("before", "after")
    ]
    return (
        "# Bytes that a layer of BERT-base moves\n\n"
        f"{record.machine_line(data['machine'])}"
        f"Modelled, not measured: fp32, a fast memory of {data['fast_bytes'] >> 20} MiB "
        "(docs/metrics.md). Before: every operator of the canonical program by itself, as torch "
        "exports it, with the same packed weights and tiles of products as after.\n\n"
        + record.markdown_table(header, rows)
        + "\n"
        + record.markdown_table(("MB by kernel", ""), kinds)
    )


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {moved * 1e-6:.1f}" for kind, moved in kinds.items())


if __name__ == "__main__":
    main()
