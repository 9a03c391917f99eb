"""What nvcc makes of kernels: spills, registers, and accesses of 16 bytes that stand together."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dfcompiler.codegen.library import KERNELS
from dfcompiler.codegen.runtime_headers import RUNTIME

_LOAD = re.compile(r"^\s*ld\.global(?:\.nc)?\.(?:v4\.\w32|v2\.\w64)\b")
_STORE = re.compile(r"^\s*st\.global\.(?:v4\.\w32|v2\.\w64)\b")
_END_OF_BLOCK = re.compile(r"^\s*(?:@!?%p\d+\s+)?bra\b|^\$\w+:|^\s*ret;")


@dataclass(frozen=True)
class MachineCode:
    """A kernel as nvcc compiled it.

    Attributes:
        registers: of a thread.
        spilled_bytes: stores and loads of registers that do not fit.
        together: the most loads of 16 bytes without a branch between them.
        stores: stores of 16 bytes.
    """

    registers: int
    spilled_bytes: int
    together: int
    stores: int


def machine_code(source: str, arch: str, folder: Path) -> dict[str, MachineCode]:
    """Each kernel of a unit by its name in the source, without its numbers.

    Args:
        source: CUDA C++ of kernels as DaCe names them, ``softmax_0_0_1``.
        arch: what to compile for, such as ``90a``.
        folder: an empty one, to compile in.
    """
    (folder / "unit.cu").write_text(source)
    code = f"-gencode=arch=compute_{arch},code=sm_{arch}"
    flags = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-w", "--keep", "-Xptxas=-v"]
    command = ["nvcc", *flags, code, f"-I{KERNELS}", f"-I{RUNTIME}", "-cubin", "unit.cu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    (ptx,) = folder.glob("unit*.ptx")
    bodies = dict(re.findall(r"\.entry (\w+)\((.*?)^\}", ptx.read_text(), re.S | re.M))
    facts = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        done.stderr,
        re.S,
    )
    return {
        _plain(name): MachineCode(
            int(registers), int(stores) + int(loads), *_accesses(bodies[name])
        )
        for name, stores, loads, registers in facts
    }


def _accesses(body: str) -> tuple[int, int]:
    most = here = stores = 0
    for line in body.splitlines():
        stores += bool(_STORE.match(line))
        here = 0 if _END_OF_BLOCK.match(line) else here + bool(_LOAD.match(line))
        most = max(most, here)
    return most, stores


def _plain(mangled: str) -> str:
    """``softmax`` of ``_Z13softmax_0_0_1PKfPf``."""
    found = re.match(r"_Z\d+([a-z_]+?)_\d", mangled)
    assert found, mangled
    return found[1]
