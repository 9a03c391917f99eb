"""The C++ compiler: which one, which version, and the command lines we give it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    *("-shared", "-fopenmp", "-Wl,-O1"),
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


def environment() -> dict[str, str]:
    """The environment of the compiler: English messages, no paths from the user's settings."""
    hidden = ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH", "GCC_COMPARE_DEBUG", "LD_RUN_PATH")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}


def run_all(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Runs commands at the same time; on a failure or an interrupt none is left running.

    Raises:
        ToolchainError: with the first messages of the command that failed.
    """
    with tempfile.TemporaryDirectory(prefix="dfc-log-") as logs, ThreadPoolExecutor() as pool:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number, command in enumerate(commands):
                with (Path(logs) / str(number)).open("wb") as log:
                    started.append(
                        subprocess.Popen(
                            command,
                            cwd=folder,
                            env=environment(),
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            start_new_session=True,
                        )
                    )
            codes = list(pool.map(lambda process: process.wait(), started))
        except BaseException:
            _kill(started)
            raise
        for number, code in enumerate(codes):
            if code:
                text = (Path(logs) / str(number)).read_text(errors="replace")
                raise _failure(commands[number], code, text)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the driver's children are in its group
        process.wait()


def _failure(command: Sequence[str], code: int, text: str) -> ToolchainError:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line)] or lines
    return ToolchainError(
        f"{Path(command[0]).name} failed with status {code} on generated code",
        where=tuple(f"> {line}" for line in errors[:5]),
        hint="the disk or the memory may be full; otherwise report this with the sources",
    )
