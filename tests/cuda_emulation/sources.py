"""CUDA sources as C++ for g++: what a preprocessor cannot do, and the compiler's command."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from dfcompiler.codegen.library import KERNELS
from dfcompiler.codegen.runtime_headers import RUNTIME
from dfcompiler.codegen.toolchain import NUMERIC_FLAGS

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("DFC_CACHE_DIR", HERE.parents[1] / "build" / "test-cache"))
FLAGS = (
    *("-std=c++20", "-O1", *NUMERIC_FLAGS, "-fPIC", "-w", "-U_FORTIFY_SOURCE"),
    # An index out of an array, and an address that is not aligned to its type, end the launch.
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
)
_REPLACED = {
    f"{name}.h": f"kernels_{name}.h"
    for name in ("barrier", "launch", "ptx", "tma", "warp_group", "wgmma")
} | {"cutlass_tiles.cuh": "kernels_cutlass_tiles.h"}
"""Headers of ``kernels/cuda`` that the emulation has its own ones for."""
_PRECOMPILED = "precompiled.h"
_ENGINE = tuple(
    f"{name}.cpp"
    for name in (
        *("async_view", "barriers", "engine", "fibers", "graphs", "memory", "products", "runtime"),
        "tensor_maps",
    )
)

_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\(\w+\)\s*|alignas\(\w+\)\s*)?([\w:\s]+?)\s*(\w+)\s*\[\s*\]"
)
_SHARED = re.compile(r"__shared__\s+([^;={}]*?)(\b\w+)(\s*(?:\[[^;\]]*\]\s*)*);")


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit's headers; they are all that is needed of it."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    homes += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    found = (Path(home) / "include" for home in homes if home)
    return next((path for path in found if (path / "cuda_bf16.h").is_file()), None)


def emulated(text: str) -> str:
    """CUDA C++ as C++: ``__shared__`` variables are static ones, poisoned for each block."""
    text = _DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(::emulation::dynamic_shared())", text)
    return _SHARED.sub(
        r"static \1\2\3; static unsigned long \2_block = 0; "
        r"::emulation::enter_shared(\2, \2_block);",
        text,
    )


def compile_emulated(sources: Mapping[str, str], options: Sequence[str] = ()) -> Path:
    """The library of some sources, by the name of their files, kept between runs.

    They find our kernels as ``cuda/…`` and the headers of DaCe.
    """
    headers = _kernel_headers()
    own = [HERE / name for name in (*_ENGINE, *_headers())]
    parts = [*headers.items(), *sources.items(), *((str(path), path.read_text()) for path in own)]
    text = "\0".join((*FLAGS, *options, *(part for item in sorted(parts) for part in item)))
    folder = CACHE / "cuda" / hashlib.sha256(text.encode()).hexdigest()[:24]
    library = folder / "emulated.so"
    if library.exists():
        return library
    work = folder.with_name(f"{folder.name}-{os.getpid()}")
    for name, header in headers.items():
        (work / "kernels" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "kernels" / name).write_text(header)
    for name, source in sources.items():
        (work / name).write_text(emulated(source))
    objects, header = _engine()
    units = [name for name in sources if not name.endswith(".h")]
    command = ["g++", *_flags(), *options, "-include", str(header), "-xc++", *units]
    command += ["-xnone", *map(str, objects), "-shared", "-Wl,-Bsymbolic", "-ldl"]
    _run([*command, "-o", library.name], work)
    shutil.rmtree(work / "kernels")
    _install(work, folder)
    return library


def _flags() -> list[str]:
    headers = toolkit()
    assert headers, "the headers of the CUDA toolkit are missing"
    places = [f"-I{HERE / 'include'}", f"-I{HERE}", "-Ikernels", f"-I{RUNTIME}"]
    return [*FLAGS, *places, "-isystem", str(headers), "-DWITH_CUDA"]


def _headers() -> list[str]:
    return [str(path.relative_to(HERE)) for path in sorted(HERE.rglob("*.h"))]


def _kernel_headers() -> dict[str, str]:
    """Our kernels, and what their headers say here."""
    paths = [*sorted(KERNELS.glob("*.h")), *sorted((KERNELS / "cuda").glob("*.*h"))]
    found = {str(path.relative_to(KERNELS)): emulated(path.read_text()) for path in paths}
    replaced = {f"cuda/{name}": (HERE / own).read_text() for name, own in _REPLACED.items()}
    return found | replaced


@cache
def _engine() -> tuple[list[Path], Path]:
    """The objects of the engine and a precompiled header, which are made once."""
    own = [HERE / name for name in (*_ENGINE, *_headers())]
    parts = [" ".join(_flags()).encode(), *(path.read_bytes() for path in own)]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]
    folder = CACHE / "cuda" / f"engine-{key}"
    objects = [f"{name}.o" for name in _ENGINE]
    if not folder.exists():
        work = folder.with_name(f"{folder.name}-{os.getpid()}")
        work.mkdir(parents=True)
        for name, made in zip(_ENGINE, objects, strict=True):
            _run(["g++", *_flags(), "-O2", "-c", str(HERE / name), "-o", made], work)
        shutil.copyfile(HERE / _PRECOMPILED, work / _PRECOMPILED)
        _run(["g++", *_flags(), "-xc++-header", _PRECOMPILED, "-o", f"{_PRECOMPILED}.gch"], work)
        _install(work, folder)
    return [folder / name for name in objects], folder / _PRECOMPILED


def _install(work: Path, folder: Path) -> None:
    """Renames a finished folder, unless another process was faster."""
    try:
        work.rename(folder)
    except OSError:
        shutil.rmtree(work)


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:8000]
