"""Memory at run time: weights, the arena beside what any schedule must keep alive, and the process.

Each shape is run by a process of its own, which has numpy and the artifact only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import built, record
from dfcompiler.analysis.liveness import container_lifetimes, value_lifetimes
from dfcompiler.ir import Program
from dfcompiler.ir.dims import evaluate

CASES = (
    ("bert_base", (1, 128)),
    ("bert_base", (8, 128)),
    ("minilm", (1, 16)),
    ("minilm", (8, 128)),
    ("decoder", (1, 512)),
)
_CHILD = """
import json, sys, numpy as np
def resident():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmRSS"].split()[0]) * 1024
inputs = dict(np.load(sys.argv[2]))
import dfcompiler.runtime as runtime
before = resident()
model = runtime.load(sys.argv[1], threads=2)
loaded = resident()
for _ in range(3):
    outputs = model.run(inputs)
print(json.dumps({
    "arena_bytes": model.arena_bytes,
    "loaded_bytes": loaded - before,
    "running_bytes": resident() - before,
    "output_bytes": sum(array.nbytes for array in outputs.values()),
}))
"""


def main() -> None:
    """Measures every case and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="models, such as: minilm")
    options = parser.parse_args()
    rows = [_measured(*case) for case in CASES if not options.only or case[0] in options.only]
    data = {"machine": record.machine(), "cases": rows}
    record.write("memory", data, _text(data))


def least_bytes(program: Program, sizes: Mapping[str, int]) -> int:
    """The most bytes of values that are alive at one operator, in the order of the program.

    No arena for this order can be smaller.
    """
    types = {(s.name, op.result): op.type for s in program.states() for op in s.ops}
    types |= {("", f"@{c.name}"): c.type for c in program.containers}
    change: dict[int, int] = {}
    for life in (*value_lifetimes(program), *container_lifetimes(program)):
        stored = evaluate(types[life.state, life.name].stored_bytes, sizes)
        change[life.start] = change.get(life.start, 0) + stored
        change[life.end + 1] = change.get(life.end + 1, 0) - stored
    most = alive = 0
    for at in sorted(change):
        alive += change[at]
        most = max(most, alive)
    return most


def _measured(model: str, shape: tuple[int, int]) -> dict[str, Any]:
    import numpy as np

    from dfcompiler.cli.artifact import read_snapshot

    folder = built.artifact(model)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "in.npz"
        np.savez(inputs, **built.random_inputs(model, shape))
        command = [sys.executable, "-c", _CHILD, str(folder), str(inputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes = dict(zip(("batch", "sequence"), shape, strict=True))
    return {
        "model": model,
        "shape": list(shape),
        "weights_bytes": (folder / "weights.bin").stat().st_size,
        "least_arena_bytes": least_bytes(read_snapshot(folder), sizes),
        **json.loads(done.stdout),
    }


def _text(data: dict[str, Any]) -> str:
    header = (
        "model",
        "batch × sequence",
        "weights",
        "arena",
        "of what is alive",
        "outputs",
        "process, loaded",
        "process, run",
    )
    rows = [
        (
            case["model"],
            " × ".join(map(str, case["shape"])),
            _megabytes(case["weights_bytes"]),
            _megabytes(case["arena_bytes"]),
            f"{case['arena_bytes'] / case['least_arena_bytes']:.2f}",
            _megabytes(case["output_bytes"]),
            _megabytes(case["loaded_bytes"]),
            _megabytes(case["running_bytes"]),
        )
        for case in data["cases"]
    ]
    return (
        "# Memory at run time\n\n"
        "The arena holds all values of a call; beside it, what is alive at the operator where most "
        "is: no arena can be smaller in this order. What the process has grown by counts the "
        "weights' pages that were read. "
        f"{record.machine_line(data['machine'])}\n" + record.markdown_table(header, rows)
    )


def _megabytes(count: int) -> str:
    return f"{count * 1e-6:.1f} MB"


if __name__ == "__main__":
    main()
