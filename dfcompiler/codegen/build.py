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
from dfcompiler.codegen.process import Background, run_all
from dfcompiler.codegen.store import digest, find, stored
from dfcompiler.codegen.toolchain import Compiler, compile_flags, find_compiler, link_flags
from dfcompiler.errors import InternalError
from dfcompiler.target import CpuTarget

PRELUDE = "prelude.h"
LIBRARY = "model.so"
_HEADERS = "headers.txt"
_DACE_HEADER = "<dace/dace.h>"
_KERNELS = Path(__file__).parent.parent / "kernels"
_DACE = Path(dace.__file__).parent
_ROOTS = {"runtime": _DACE / "runtime", "external": _DACE / "external", "kernels": _KERNELS}
"""Folders of headers, as they are called in an artifact's sources; DaCe's keep their places,
because its headers include each other by relative paths."""
_INCLUDES = ("runtime/include", "kernels")
_GUARD = ("#ifndef DFC_PRELUDE_H", "#define DFC_PRELUDE_H")

_preparing: dict[str, Background] = {}


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
    head = ["// Everything that the program includes.", *_GUARD]
    return "\n".join([*head, *lines, "#endif", ""])


def prepare(target: CpuTarget) -> None:
    """Begins to precompile the usual prelude, while something else still has to be done.

    Raises:
        ToolchainError: if there is no compiler.
    """
    compiler = find_compiler()
    text = prelude_text(())
    key = _prelude_key(text, target, compiler)
    if compiler.family == "gcc" and key not in _preparing and find(key) is None:
        _preparing[key] = Background(lambda: _precompile(key, text, target, compiler))


def build_library(sources: Sources, target: CpuTarget, folder: Path, out: Path) -> None:
    """Writes sources, their headers and their build script to `folder`, the library to `out`.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    compiler = find_compiler()
    folder.mkdir(parents=True)
    for name, text in sources.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    key = digest(
        [
            *("library", str(compiler), _headers_digest()),
            *compile_flags(target),
            *link_flags(),
            *(part for item in sorted(sources.files.items()) for part in item),
        ]
    )
    found = stored(key, lambda work: _compile(sources, target, compiler, folder, work))
    for name in (found / _HEADERS).read_text(encoding="utf-8").splitlines():
        root, _, rest = name.partition("/")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOTS[root] / rest, folder / name)
    script = folder / "build.sh"
    script.write_text(_script(sources, target, compiler), encoding="utf-8")
    script.chmod(0o755)
    shutil.copyfile(found / LIBRARY, out)
    out.chmod(0o755)


def _compile(
    sources: Sources, target: CpuTarget, compiler: Compiler, folder: Path, work: Path
) -> None:
    """Compiles to `work`; the commands differ from those of the script by paths alone."""
    precompiled = _precompiled(sources.files[PRELUDE], target, compiler)
    commands = []
    for unit in sources.units:
        ahead: tuple[str, ...] = ()
        if precompiled and f'#include "{PRELUDE}"' in sources.files[f"{unit}.cpp"]:
            ahead = ("-include", str(precompiled / PRELUDE))
        commands.append(
            (
                *(*compiler.command, *_flags(target), *ahead, f"-frandom-seed={unit}"),
                *("-MD", "-MF", str(work / f"{unit}.d"), "-MT", "unit"),
                *("-c", f"{unit}.cpp", "-o", str(work / f"{unit}.o")),
            )
        )
    run_all(commands, folder)
    objects = [str(work / f"{unit}.o") for unit in sources.units]
    run_all([(*compiler.command, *link_flags(), *objects, "-o", str(work / LIBRARY))], folder)
    names = _header_names([work / f"{unit}.d" for unit in sources.units])
    if precompiled:  # the rule of a unit names the precompiled file, not what is in it
        names |= set((precompiled / _HEADERS).read_text(encoding="utf-8").splitlines())
    _write_header_names(names, work)
    for path in (*work.glob("*.o"), *work.glob("*.d")):
        path.unlink()


def _precompiled(text: str, target: CpuTarget, compiler: Compiler) -> Path | None:
    """The folder of the precompiled prelude if there is one or one is being made.

    Making it takes as long as compiling two units without it, so that is not begun here.
    """
    key = _prelude_key(text, target, compiler)
    if key in _preparing:
        _preparing.pop(key).wait()
    return find(key)


def _precompile(key: str, text: str, target: CpuTarget, compiler: Compiler) -> None:
    def make(work: Path) -> None:
        (work / PRELUDE).write_text(text, encoding="utf-8")
        output = ("-x", "c++-header", PRELUDE, "-o", f"{PRELUDE}.gch")
        rule = ("-MD", "-MF", "prelude.d", "-MT", "unit")
        run_all([(*compiler.command, *_flags(target), *output, *rule)], work)
        _write_header_names(_header_names([work / "prelude.d"]), work)
        (work / "prelude.d").unlink()

    stored(key, make)


def _prelude_key(text: str, target: CpuTarget, compiler: Compiler) -> str:
    return digest(["prelude", str(compiler), *compile_flags(target), text, _headers_digest()])


def _flags(target: CpuTarget) -> tuple[str, ...]:
    """Options of a unit: headers where they are installed, called what the artifact calls them."""
    maps = (f"-ffile-prefix-map={path}={name}" for name, path in _ROOTS.items())
    places = (f"-I{_ROOTS[name] / rest}" for name, _, rest in (i.partition("/") for i in _INCLUDES))
    return (*compile_flags(target), *maps, *places)


def _script(sources: Sources, target: CpuTarget, compiler: Compiler) -> str:
    return template(
        "build.sh",
        {
            "COMPILER": str(compiler),
            "UNITS": " ".join(sources.units),
            "COMPILE_FLAGS": " ".join(compile_flags(target)),
            "INCLUDES": " ".join(f"-I{name}" for name in _INCLUDES),
            "LINK_FLAGS": " ".join(link_flags()),
            "OBJECTS": " ".join(f'"$objects/{unit}.o"' for unit in sources.units),
        },
    )


def _header_names(rules: Sequence[Path]) -> set[str]:
    """The prerequisites of make rules that lie in our roots, named from there."""
    names = set()
    for rule in rules:
        text = rule.read_text(encoding="utf-8").partition(":")[2]
        for word in text.replace("\\\n", " ").replace("\\ ", "\0").split():
            path = Path(os.path.normpath(word.replace("\0", " ")))
            names |= {
                f"{name}/{path.relative_to(root).as_posix()}"
                for name, root in _ROOTS.items()
                if path.is_relative_to(root)
            }
    return names


def _write_header_names(names: set[str], folder: Path) -> None:
    if not names:
        raise InternalError("the compiler lists no headers of the program")
    (folder / _HEADERS).write_text("".join(f"{n}\n" for n in sorted(names)), encoding="utf-8")


def _kernel_headers() -> list[Path]:
    return sorted((_KERNELS / "cpu").glob("*.h"))


@cache
def _headers_digest() -> str:
    files = [*_kernel_headers(), *sorted((_DACE / "runtime" / "include").rglob("*.h"))]
    return digest([dace.__version__, *(path.read_bytes() for path in files)])
