"""The compilers: which ones, which versions, and the command lines we give them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dfcompiler.errors import ToolchainError
from dfcompiler.target import CpuTarget, CudaTarget, Target

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
_DEVICE_NUMERIC_FLAGS = ("--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
"""The same policy for device code: subnormal values stay, quotients and roots are rounded."""
_NVCC_COMPILE_FLAGS = ("-O3", "-std=c++20", "--expt-relaxed-constexpr", "-w")
_NVCC_HOST_FLAGS = ("-fPIC", "-fvisibility=hidden", "-w", *NUMERIC_FLAGS)
_NVCC_LINK_FLAGS = (
    *("-shared", "--cudart=static", "--no-device-link"),
    *("-Xlinker=-O1,-Bsymbolic,--build-id=none,-z,noexecstack,-z,relro,--no-undefined",),
    "-Xlinker=--exclude-libs,ALL,--strip-all",
)
"""Without symbols: those of nvcc's temporary files are other ones in every run."""
_INSTALL_HINT = (
    "install g++ 11 or newer: 'apt-get install g++' (Debian, Ubuntu), 'dnf install gcc-c++' "
    "(Fedora), 'brew install gcc' and CXX=g++-14 (macOS)"
)
_LEAST_GCC = 11
_NVCC_HINT = (
    "install it with 'pip install nvidia-cuda-nvcc nvidia-cuda-cccl', or the CUDA toolkit, and "
    "name it with NVCC=/path/to/nvcc if it is not on the PATH"
)
_LEAST_NVCC = 12
_TOOLKIT = Path("/usr/local/cuda")


@dataclass(frozen=True)
class Compiler:
    """A compiler of C++ or CUDA C++.

    Attributes:
        command: the program and its first arguments.
        family: ``gcc``, ``clang`` or ``nvcc``.
        version: such as ``12.2.0``.
    """

    command: tuple[str, ...]
    family: str
    version: str

    def __str__(self) -> str:
        names = {"gcc": "g++", "clang": "clang++", "nvcc": "nvcc"}
        return f"{names[self.family]} {self.version}"


@dataclass(frozen=True)
class Toolchain:
    """What compiles the units of an artifact and links them.

    Attributes:
        compilers: the one that is called, and the one that it calls for host code, if any.
        compile_flags: the options that decide what code comes out, numeric policy included.
        numeric_flags: those of them that are the numeric policy.
        link_flags: the options of the link.
        script: how a shell script calls it.
    """

    compilers: tuple[Compiler, ...]
    compile_flags: tuple[str, ...]
    numeric_flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    script: str

    def __str__(self) -> str:
        return " and ".join(map(str, self.compilers))

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its first arguments."""
        first, *hosts = self.compilers
        named = (f"-ccbin={host.command[0]}" for host in hosts)
        options = (f"-Xcompiler={option}" for host in hosts for option in host.command[1:])
        return (*first.command, *named, *options)

    def host(self, option: str) -> str:
        """An option of the compiler of host code, as the one that is called takes it."""
        return option if len(self.compilers) == 1 else f"-Xcompiler={option}"


def find_toolchain(target: Target) -> Toolchain:
    """What code for `target` is compiled with; a GPU or its driver is not looked for.

    Raises:
        ToolchainError: if a compiler is missing, or one is too old.
    """
    host = find_compiler()
    if isinstance(target, CpuTarget):
        flags = compile_flags(target)
        return Toolchain((host,), flags, NUMERIC_FLAGS, link_flags(), "${CXX:-g++}")
    return Toolchain(
        (find_nvcc(), host),
        (*_NVCC_COMPILE_FLAGS, *_DEVICE_NUMERIC_FLAGS, _architecture(target), _host_flags()),
        (*_DEVICE_NUMERIC_FLAGS, *NUMERIC_FLAGS),
        _NVCC_LINK_FLAGS,
        "${NVCC:-nvcc} -ccbin=${CXX:-g++}",
    )


def _architecture(target: CudaTarget) -> str:
    return f"-gencode=arch=compute_{target.arch},code=sm_{target.arch}"


def _host_flags() -> str:
    return f"-Xcompiler={','.join(_NVCC_HOST_FLAGS)}"


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


def find_nvcc() -> Compiler:
    """The compiler of CUDA C++: ``NVCC``, or that of ``CUDA_HOME``, the ``PATH`` or a package.

    Raises:
        ToolchainError: if there is none, or one that is too old.
    """
    named = shlex.split(os.environ.get("NVCC", ""))
    if named:
        program = shutil.which(named[0])
        if program is None:
            raise ToolchainError(f"no CUDA compiler: NVCC={named[0]} is not there", hint=_NVCC_HINT)
        return _identify_nvcc((program, *named[1:]))
    found = next(_installed_nvcc(), None)
    if found is None:
        raise ToolchainError(
            "no CUDA compiler: nvcc is neither in CUDA_HOME, nor on the PATH, nor a Python package",
            hint=_NVCC_HINT,
        )
    return _identify_nvcc((found,))


def _installed_nvcc() -> Iterator[str]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield from _programs(Path(os.environ[variable]), "bin/nvcc")
    on_path = shutil.which("nvcc")
    if on_path:
        yield on_path
    for folder in map(Path, sys.path):
        if folder.name in ("site-packages", "dist-packages"):
            yield from _programs(folder / "nvidia", "*/bin/nvcc")
    yield from _programs(_TOOLKIT, "bin/nvcc")


def _programs(folder: Path, pattern: str) -> Iterator[str]:
    yield from (str(path) for path in sorted(folder.glob(pattern)) if os.access(path, os.X_OK))


@cache
def _identify_nvcc(command: tuple[str, ...]) -> Compiler:
    try:
        text = _capture([*command, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(
            f"{shlex.join(command)} does not work as a CUDA compiler: {error}", hint=_NVCC_HINT
        ) from error
    found = re.search(r"\bV(\d+)(\.\d+)*", text)
    if found is None:
        raise ToolchainError(f"{shlex.join(command)} is no CUDA compiler", hint=_NVCC_HINT)
    version = found[0][1:]
    if int(found[1]) < _LEAST_NVCC:
        raise ToolchainError(
            f"{shlex.join(command)} is version {version}; expected {_LEAST_NVCC} or newer",
            hint=_NVCC_HINT,
        )
    return Compiler(command, "nvcc", version)


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
