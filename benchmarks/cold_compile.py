"""One compile in a process of its own; Python's imports are part of its seconds."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def compiled(
    model: Path, folder: Path, cache: Path, target: str = "cpu", precision: str = "f32"
) -> dict[str, Any]:
    """Compiles `model` to `folder`, which is replaced.

    Args:
        model: an ONNX file.
        folder: the artifact.
        cache: of build results; a folder that is not there makes a cold compile.
        target: what to compile for.
        precision: ``f32``, ``bf16`` or ``f16``.

    Returns:
        Seconds of the compile, of its stages and of the process; bytes at the peak, of ours and
        of the largest process of a compiler.
    """
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(model), str(folder), target, precision],
        env={**os.environ, "DFC_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": time.perf_counter() - started}


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("target")
    parser.add_argument("precision")
    given = parser.parse_args()
    started = time.perf_counter()
    from dfcompiler import api

    options = api.Options(target=given.target, precision=given.precision)
    done = api.compile_artifact(given.model, given.out, options)
    found = {
        "compile_s": time.perf_counter() - started,
        "stages_s": dict(done.seconds),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "compiler_peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
