"""What compiling for a GPU costs on a machine that has none: seconds cold, by stage."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import built, record
from benchmarks.cold_compile import compiled

MODELS = {"minilm": "MiniLM", "bert_base": "BERT-base", "decoder": "decoder, 30 layers"}
PRECISIONS = ("f32", "bf16")


def main() -> None:
    """Compiles every model in a process of its own and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="cuda:sm_90")
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=MODELS)
    given = parser.parse_args()
    rows = []
    for model in given.only:
        for precision in PRECISIONS:
            rows.append(_row(model, precision, given.target))
            print(f"{model} {precision}: {rows[-1]['compile_s']:.1f} s", flush=True)
    data = {"machine": record.machine(), "target": given.target, "rows": rows}
    record.write("cross_compile", data, _text(data))


def _row(model: str, precision: str, target: str) -> dict[str, Any]:
    path = built.exported(model)
    with tempfile.TemporaryDirectory(dir=built.BUILD) as scratch:
        out = Path(scratch) / "m.dfc"
        cost = compiled(path, out, Path(scratch) / "cache", target, precision)
        size = (out / "model.so").stat().st_size
    return {"model": model, "precision": precision, "library_bytes": size, **cost}


def _text(data: dict[str, Any]) -> str:
    stages = list(data["rows"][0]["stages_s"])
    header = ("model", "precision", "cold s", *stages, "nvcc peak", "library")
    rows = [
        (
            MODELS[row["model"]],
            row["precision"],
            f"{row['compile_s']:.1f}",
            *(f"{row['stages_s'][stage]:.1f}" for stage in stages),
            f"{row['compiler_peak_bytes'] * 1e-6:.0f} MB",
            f"{row['library_bytes'] * 1e-6:.1f} MB",
        )
        for row in data["rows"]
    ]
    return (
        f"# Cross-compiling for {data['target']}\n\n"
        "One cold compile each, in a fresh process, without a GPU. "
        f"{record.machine_line(data['machine'])}\n" + record.markdown_table(header, rows)
    )


if __name__ == "__main__":
    main()
