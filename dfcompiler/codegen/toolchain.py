"""The C++ compiler: which one, which version, and the command lines we give it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from dfcompiler.errors import ToolchainError
from dfcompiler.target import CpuTarget

NUMERIC_FLAGS = (
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
)
"""The numeric policy: IEEE values, with a*b+c contracted; infinities and NaN keep their meaning."""

_COMPILE_FLAGS = ("-O3", "-std=c++20", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-w")
_LINK_FLAGS = (
    *("-shared", "-fopenmp", "-Wl,-O1", "-Wl,-Bsymbolic"),
    *("-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,--no-undefined"),
)
_INSTALL_HINT = (
    "install g++ 11 or newer: 'apt-get install g++' (Debian, Ubuntu), 'dnf install gcc-c++' "
    "(Fedora), 'brew install gcc' and CXX=g++-14 (macOS)"
)
_LEAST_GCC = 11


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: the program and its first arguments.
        family: ``gcc`` or ``clang``.
        version: such as ``12.2.0``.
    """

    command: tuple[str, ...]
    family: str
    version: str

    def __str__(self) -> str:
        return f"{'g++' if self.family == 'gcc' else 'clang++'} {self.version}"


def find_compiler() -> Compiler:
    """The compiler that ``CXX`` names, or g++.

    Raises:
        ToolchainError: if there is none, or one that is too old.
    """
    named = os.environ.get("CXX", "").strip()
    command = tuple(shlex.split(named)) or ("g++",)
    program = shutil.which(command[0])
    if program is None:
        source = f"CXX={named}" if named else "g++"
        raise ToolchainError(f"no C++ compiler: {source} is not on the PATH", hint=_INSTALL_HINT)
    return _identify((program, *command[1:]))


@cache
def _identify(command: tuple[str, ...]) -> Compiler:
    try:
        text = _capture([*command, "--version"])
        version = _capture([*command, "-dumpfullversion", "-dumpversion"]).strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"{shlex.join(command)} does not work as a C++ compiler: {error}", hint=_INSTALL_HINT
        ) from error
    family = "clang" if "clang" in text else "gcc"
    if family == "gcc" and int(version.partition(".")[0] or 0) < _LEAST_GCC:
        raise ToolchainError(
            f"{shlex.join(command)} is version {version}; expected {_LEAST_GCC} or newer",
            hint=_INSTALL_HINT,
        )
    return Compiler(command, family, version)


def _capture(command: Sequence[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return run.stdout


def compile_flags(target: CpuTarget) -> tuple[str, ...]:
    """The options that decide what code comes out, numeric policy included."""
    return (*_COMPILE_FLAGS, *NUMERIC_FLAGS, *target.flags)


def link_flags() -> tuple[str, ...]:
    """The options of the link."""
    return _LINK_FLAGS
