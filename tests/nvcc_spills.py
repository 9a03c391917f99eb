"""What nvcc says of kernels: no warning, and how many registers do not fit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dfcompiler.codegen.library import KERNELS


def spills_of(source: Sequence[str], arch: str, folder: Path) -> list[tuple[int, int]]:
    """Bytes of spill stores and loads of each kernel of a unit, compiled without a warning.

    The host's code is the same for all GPUs: it is compiled for the newest alone.

    Args:
        source: lines of CUDA C++.
        arch: what to compile for, such as ``90a``.
        folder: an empty one, to compile in.
    """
    (folder / "unit.cu").write_text("\n".join(source))
    code = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    stage = "-c" if arch == "90a" else "-cubin"
    strict = ["-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra", "-Xptxas=-v"]
    command = ["nvcc", "-std=c++20", "-O3", code, *strict, f"-I{KERNELS}", stage, "unit.cu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    # What ptxas calls so: setmaxnreg ignored (C7508), wgmma made to wait for each other (C7510).
    assert "Potential Performance Loss" not in done.stderr, done.stderr[:4000]
    found = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    return [(int(stores), int(loads)) for stores, loads in found]
