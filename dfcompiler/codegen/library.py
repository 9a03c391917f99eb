"""Sources → shared library: one object per unit, cached by content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dace

from dfcompiler.codegen.cutlass import find_cutlass
from dfcompiler.codegen.process import run_all
from dfcompiler.codegen.runtime_headers import RUNTIME
from dfcompiler.codegen.store import digest, stored
from dfcompiler.codegen.templates import template
from dfcompiler.codegen.toolchain import Toolchain, find_toolchain
from dfcompiler.target import CpuTarget, Target

PRELUDE = "prelude.h"
LIBRARY = "model.so"
_OBJECT = "unit.o"
_HEADERS = "headers.txt"
KERNELS = Path(__file__).parent.parent / "kernels"
_DACE = Path(dace.__file__).parent
_ROOTS = {"runtime": _DACE / "runtime", "external": _DACE / "external", "kernels": KERNELS}
"""Folders of headers, as they are called in an artifact's sources; DaCe's keep their places,
because its headers include each other by relative paths."""
_INCLUDES = ("runtime/include", "kernels")
_GUARD = ("#ifndef DFC_PRELUDE_H", "#define DFC_PRELUDE_H")


@dataclass(frozen=True)
class Unit:
    """What is compiled on its own: ``name.cpp`` and the headers that it includes from beside it.

    Attributes:
        suffix: ``.cu`` for one with code for a GPU.
        needs_cutlass: whether it includes headers of CUTLASS, which are not kept with the sources.
    """

    name: str
    files: Mapping[str, str]
    suffix: str = ".cpp"
    needs_cutlass: bool = False

    @property
    def source(self) -> str:
        """The file that is compiled."""
        return self.name + self.suffix


def prelude_text(includes: Sequence[str], target: Target) -> str:
    """The one header of the program: `includes`, and all kernels of a processor."""
    headers = _kernel_headers() if isinstance(target, CpuTarget) else ()
    kernels = [f'"{path.relative_to(KERNELS).as_posix()}"' for path in headers]
    others = (name for name in includes if name not in kernels)
    lines = [f"#include {name}" for name in (*others, *kernels)]
    head = ["// Everything that the program includes.", *_GUARD]
    return "\n".join([*head, *lines, "#endif", ""])


def compile_unit(unit: Unit, target: Target) -> Path:
    """The folder in the store with the object of a unit and the names of its headers.

    Raises:
        ToolchainError: if the compiler is missing or fails, or CUTLASS is needed and missing.
    """
    tools = find_toolchain(target)
    key = digest(
        [
            *("unit", unit.source, _needed([unit], tools), headers_digest()),
            *tools.compile_flags,
            *(part for item in sorted(unit.files.items()) for part in item),
        ]
    )
    return stored(key, lambda work: _compile(unit, tools, work))


def link_library(
    units: Sequence[Unit], objects: Sequence[Path], target: Target, folder: Path, out: Path
) -> None:
    """Links what `compile_unit` made to `out`; writes the sources and their script to `folder`.

    Raises:
        ToolchainError: if the linker fails.
    """
    tools = find_toolchain(target)
    order = sorted(range(len(units)), key=lambda i: units[i].name)
    paths = [str(objects[i] / _OBJECT) for i in order]
    command = (*tools.command, *tools.link_flags, *paths, "-o", str(out))
    run_all([command], out.parent)
    out.chmod(0o755)
    folder.mkdir(parents=True)
    for unit in units:
        for name, text in unit.files.items():
            (folder / name).write_text(text, encoding="utf-8")
    _copy_headers(objects, folder)
    script = folder / "build.sh"
    names = [units[i].source for i in order]
    includes = [f"-I{name}" for name in _INCLUDES if (folder / name).is_dir()]
    if any(unit.needs_cutlass for unit in units):
        includes.append('-I"${CUTLASS_HOME:?is not set to a folder with include/cutlass}/include"')
        (folder / "LICENSE.cutlass").write_text(find_cutlass().license, encoding="utf-8")
    script.write_text(_script(names, includes, tools, _needed(units, tools)), encoding="utf-8")
    script.chmod(0o755)


def _copy_headers(objects: Sequence[Path], folder: Path) -> None:
    listed = [(path / _HEADERS).read_text(encoding="utf-8").splitlines() for path in objects]
    for name in dict.fromkeys(name for names in listed for name in names):
        root, _, rest = name.partition("/")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOTS[root] / rest, folder / name)


def _compile(unit: Unit, tools: Toolchain, work: Path) -> None:
    """Compiles in `work`; the command differs from that of the script by paths alone."""
    for name, text in unit.files.items():
        (work / name).write_text(text, encoding="utf-8")
    command = (
        *(*tools.command, *_flags(unit, tools), tools.host(f"-frandom-seed={unit.source}")),
        *("-c", unit.source, "-o", _OBJECT),
    )
    names = _with_headers(command, work)
    (work / _HEADERS).write_text("".join(f"{n}\n" for n in sorted(names)), encoding="utf-8")
    for name in unit.files:
        (work / name).unlink()


def _needed(units: Sequence[Unit], tools: Toolchain) -> str:
    """Compilers and libraries of headers, with their versions."""
    cutlass = any(unit.needs_cutlass for unit in units)
    return f"{tools} and {find_cutlass()}" if cutlass else str(tools)


def _flags(unit: Unit, tools: Toolchain) -> tuple[str, ...]:
    """Options of a unit: headers where they are installed, called what the artifact calls them."""
    roots = _ROOTS | ({"cutlass": find_cutlass().home} if unit.needs_cutlass else {})
    maps = (tools.host(f"-ffile-prefix-map={path}={name}") for name, path in roots.items())
    includes = (*_INCLUDES, *(("cutlass/include",) if unit.needs_cutlass else ()))
    places = (f"-I{roots[name] / rest}" for name, _, rest in (i.partition("/") for i in includes))
    return (*tools.compile_flags, *maps, *places)


def _script(units: Sequence[str], includes: Sequence[str], tools: Toolchain, needed: str) -> str:
    return template(
        "build.sh",
        {
            "COMPILER": needed,
            "COMMAND": tools.script,
            "UNITS": " ".join(units),
            "COMPILE_FLAGS": " ".join(tools.compile_flags),
            "INCLUDES": " ".join(includes),
            "SEED": tools.host('-frandom-seed="$unit"'),
            "LINK_FLAGS": " ".join(tools.link_flags),
            "OBJECTS": " ".join(f'"$objects/{unit}.o"' for unit in units),
        },
    )


def _with_headers(command: Sequence[str], folder: Path) -> set[str]:
    """Runs a compiler; the headers it read that lie in our roots, named from there."""
    rule = folder / "rule.d"
    run_all([(*command, "-MD", "-MF", rule.name, "-MT", "unit")], folder)
    text = rule.read_text(encoding="utf-8").partition(":")[2]
    rule.unlink()
    names = set()
    for word in text.replace("\\\n", " ").replace("\\ ", "\0").split():
        path = Path(os.path.normpath(word.replace("\0", " ")))
        names |= {
            f"{name}/{path.relative_to(root).as_posix()}"
            for name, root in _ROOTS.items()
            if path.is_relative_to(root)
        }
    return names


def _kernel_headers() -> list[Path]:
    return sorted((KERNELS / "cpu").glob("*.h"))


@cache
def kernels_digest() -> str:
    """One hash of all headers of CPU kernels."""
    headers = (*_kernel_headers(), *sorted(KERNELS.glob("*.h")))
    return digest([path.read_bytes() for path in headers])


@cache
def headers_digest() -> str:
    """One hash of all headers of kernels and of the runtime, and of DaCe's version."""
    kernels = (path for path in KERNELS.rglob("*") if path.suffix in (".h", ".cuh"))
    files = [*sorted(kernels), *sorted(RUNTIME.rglob("*.h"))]
    return digest([dace.__version__, *(path.read_bytes() for path in files)])
