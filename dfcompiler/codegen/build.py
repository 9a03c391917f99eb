"""Sources → shared library: precompiled prelude, parallel units, cached by content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dace

from dfcompiler.codegen.c_api import template
from dfcompiler.codegen.store import digest, stored
from dfcompiler.codegen.toolchain import (
    Compiler,
    compile_flags,
    find_compiler,
    link_flags,
    run_all,
)
from dfcompiler.errors import InternalError
from dfcompiler.target import CpuTarget

PRELUDE = "prelude.h"
LIBRARY = "model.so"
_DACE_HEADER = "<dace/dace.h>"
_KERNELS = Path(__file__).parent.parent / "kernels"
_DACE = Path(dace.__file__).parent
_ROOTS = {"runtime": _DACE / "runtime", "external": _DACE / "external", "kernels": _KERNELS}
"""Folders of headers, as they are called in an artifact's sources; DaCe's keep their places,
because its headers include each other by relative paths."""
_GUARD = ("#ifndef DFC_PRELUDE_H", "#define DFC_PRELUDE_H")
_INCLUDES = ("-Iruntime/include", "-Ikernels")


@dataclass(frozen=True)
class Sources:
    """What is compiled, by file name; every ``.cpp`` is a unit of its own."""

    files: Mapping[str, str]

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(sorted(Path(n).stem for n in self.files if n.endswith(".cpp")))


def prelude_text(includes: Sequence[str]) -> str:
    """The one header of the program: DaCe's runtime and our kernels."""
    ours = [f'"{path.relative_to(_KERNELS).as_posix()}"' for path in _kernel_headers()]
    known = [_DACE_HEADER, *ours]
    lines = [f"#include {name}" for name in (*known, *(n for n in includes if n not in known))]
    head = ["// Everything that the program includes; compiled once.", *_GUARD]
    return "\n".join([*head, *lines, "#endif", ""])


def write_sources(sources: Sources, target: CpuTarget, folder: Path) -> None:
    """Writes `sources`, the headers they need and the script that builds them again."""
    compiler = find_compiler()
    prelude = _prelude(sources, target, compiler)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sources.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in (prelude / "headers.txt").read_text(encoding="utf-8").split("\n")[:-1]:
        root, _, rest = name.partition("/")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOTS[root] / rest, folder / name)
    script = folder / "build.sh"
    script.write_text(_script(sources, target, compiler), encoding="utf-8")
    script.chmod(0o755)


def build_library(sources: Sources, target: CpuTarget, folder: Path, out: Path) -> None:
    """Compiles the sources that `write_sources` wrote to `folder` into the shared library `out`.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    compiler = find_compiler()
    prelude = _prelude(sources, target, compiler)
    key = digest(
        [
            *("library", str(compiler), prelude.name),
            *compile_flags(target),
            *link_flags(),
            *(part for item in sorted(sources.files.items()) for part in item),
        ]
    )
    found = stored(key, lambda work: _compile(sources, target, compiler, prelude, folder, work))
    shutil.copyfile(found / LIBRARY, out)
    out.chmod(0o755)


def prepare(target: CpuTarget) -> None:
    """Compiles the usual prelude ahead, while something else still has to be done.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    _prelude(Sources({PRELUDE: prelude_text(())}), target, find_compiler())


def _prelude(sources: Sources, target: CpuTarget, compiler: Compiler) -> Path:
    """The cached folder with the compiled prelude and the list of headers it needs."""
    text = sources.files[PRELUDE]
    key = digest(["prelude", str(compiler), *compile_flags(target), text, _headers_digest()])

    def make(work: Path) -> None:
        header = work / PRELUDE
        header.write_text(text, encoding="utf-8")
        roots = [f"-I{_ROOTS['runtime'] / 'include'}", f"-I{_KERNELS}"]
        mode = ["-x", "c++", "-fsyntax-only"]
        if compiler.family == "gcc":
            mode = ["-x", "c++-header", "-o", f"{PRELUDE}.gch"]
        listing = ["-MD", "-MF", "deps", "-MT", "prelude"]
        run_all([[*compiler.command, *_unit_flags(target), *roots, *mode, *listing, PRELUDE]], work)
        names = _header_names((work / "deps").read_text(encoding="utf-8"))
        (work / "headers.txt").write_text("".join(f"{n}\n" for n in names), encoding="utf-8")
        (work / "deps").unlink()

    return stored(key, make)


def _compile(
    sources: Sources,
    target: CpuTarget,
    compiler: Compiler,
    prelude: Path,
    folder: Path,
    work: Path,
) -> None:
    commands = []
    for unit in sources.units:
        ahead = []
        if f'#include "{PRELUDE}"' in sources.files[f"{unit}.cpp"] and compiler.family == "gcc":
            ahead = ["-include", str(prelude / PRELUDE)]
        commands.append(
            [
                *(*compiler.command, *_unit_flags(target), *ahead, *_INCLUDES),
                *(f"-frandom-seed={unit}", "-c", f"{unit}.cpp", "-o", str(work / f"{unit}.o")),
            ]
        )
    run_all(commands, folder)
    objects = [str(work / f"{unit}.o") for unit in sources.units]
    run_all([[*compiler.command, *link_flags(), *objects, "-o", str(work / LIBRARY)]], folder)
    for name in objects:
        Path(name).unlink()


def _unit_flags(target: CpuTarget) -> tuple[str, ...]:
    maps = (f"-ffile-prefix-map={path}={name}" for name, path in _ROOTS.items())
    return (*compile_flags(target), *maps)


def _script(sources: Sources, target: CpuTarget, compiler: Compiler) -> str:
    return template(
        "build.sh",
        {
            "COMPILER": str(compiler),
            "UNITS": " ".join(sources.units),
            "COMPILE_FLAGS": " ".join(compile_flags(target)),
            "INCLUDES": " ".join(_INCLUDES),
            "LINK_FLAGS": " ".join(link_flags()),
            "OBJECTS": " ".join(f'"$objects/{unit}.o"' for unit in sources.units),
        },
    )


def _header_names(deps: str) -> list[str]:
    """The prerequisites of a make rule that lie in our roots, named from there."""
    words = deps.partition(":")[2].replace("\\\n", " ").replace("\\ ", "\0").split()
    names = set()
    for word in words:
        path = Path(os.path.normpath(word.replace("\0", " ")))
        for name, root in _ROOTS.items():
            if path.is_relative_to(root):
                names.add(f"{name}/{path.relative_to(root).as_posix()}")
    if not names:
        raise InternalError("the compiler lists no headers for the prelude")
    return sorted(names)


def _kernel_headers() -> list[Path]:
    return sorted((_KERNELS / "cpu").glob("*.h"))


@cache
def _headers_digest() -> str:
    files = [*_kernel_headers(), *sorted((_DACE / "runtime" / "include").rglob("*.h"))]
    return digest([dace.__version__, *(path.read_bytes() for path in files)])
