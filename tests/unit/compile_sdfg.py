"""Lowered programs as functions: DaCe's code, compiled directly, called with numpy arrays."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import dace
import numpy as np
from dace.codegen import codegen

from dfcompiler.codegen.dace_sources import dace_configuration
from dfcompiler.codegen.toolchain import NUMERIC_FLAGS
from dfcompiler.codegen.weights import pack
from dfcompiler.ir import Program, parse
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.interpret import bind_symbols
from dfcompiler.lowering import Argument, Lowered, lower
from dfcompiler.lowering.symbolic import program_name
from dfcompiler.target import parse_target

KERNELS = Path(__file__).resolve().parents[2] / "dfcompiler" / "kernels"
DACE_HEADERS = Path(dace.__file__).parent / "runtime" / "include"
FLAGS = ("-std=c++20", *NUMERIC_FLAGS, "-fopenmp", "-fPIC", "-shared")


def generate(lowered: Lowered) -> str:
    """The C++ source of a lowered program."""
    with dace_configuration():
        source = codegen.generate_code(lowered.sdfg)[0].clean_code
    return source.replace('#include "../../include/hash.h"', "")


class Compiled:
    """A lowered program that can be called."""

    def __init__(
        self,
        program: Program | str,
        *options: str,
        optimize: str = "-O1",
        expansions: Mapping[str, str] | None = None,
        target: str = "cpu",
    ) -> None:
        self.program = parse(program) if isinstance(program, str) else program
        machine = parse_target(target)
        self.lowered = lower(self.program, machine, expansions)
        self.source = generate(self.lowered)
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "program.cpp"
        path.write_text(self.source)
        flags = (*FLAGS, *machine.flags, optimize, *options)
        includes = (f"-I{DACE_HEADERS}", f"-I{KERNELS}")
        library = path.with_suffix(".so")
        done = subprocess.run(
            ["g++", *flags, *includes, str(path), "-o", str(library)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + self.source
        self.messages = done.stderr
        self.library = ctypes.CDLL(str(library))
        self.persistent: dict[str, np.ndarray] = {}

    def run(
        self, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs by name."""
        bindings = dict(symbols or {})
        bindings |= bind_symbols(self.program, {n: a.shape for n, a in inputs.items()})
        self.status = np.zeros(2, np.int64)
        slots: dict[str, np.ndarray] = {}
        outputs: dict[str, np.ndarray] = {}
        memory = {
            a.name: self.memory(a, inputs, bindings, slots, outputs) for a in self.lowered.arguments
        }
        name = self.lowered.sdfg.name
        values = [ctypes.c_int64(bindings[symbol]) for symbol in self.lowered.symbols]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in memory.values()]
        init, run = self.library[f"__dace_init_{name}"], self.library[f"__program_{name}"]
        init.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(init(*[ctypes.c_int64(bindings[s]) for s in self.init_symbols()]))
        run(handle, *pointers, *values)
        self.library[f"__dace_exit_{name}"](handle)
        return outputs

    def init_symbols(self) -> list[str]:
        names = self.lowered.sdfg.init_signature(for_call=True).split(", ")
        return [program_name(name) for name in names if name]

    def memory(
        self,
        argument: Argument,
        inputs: Mapping[str, np.ndarray],
        bindings: Mapping[str, int],
        slots: dict[str, np.ndarray],
        outputs: dict[str, np.ndarray],
    ) -> np.ndarray:
        declared = argument.memory or argument.type
        shape = tuple(evaluate(dim, bindings) for dim in declared.shape)
        dtype = declared.dtype.numpy
        match argument.role:
            case "input":
                return np.ascontiguousarray(inputs[argument.container])
            case "weight":
                return pack(self.program.data[argument.container], declared.layout)
            case "persist":
                start = self.program.data.get(argument.container)
                fresh = np.zeros(shape, dtype) if start is None else start.copy()
                return self.persistent.setdefault(argument.container, fresh)
            case "output":
                return outputs.setdefault(argument.container, np.full(shape, 77, dtype))
            case "value":
                members = [a for a in self.lowered.arguments if a.slot == argument.slot]
                types = [a.type for a in members if a.memory is None]
                size = max(evaluate(member.stored_bytes, bindings) for member in types)
                return slots.setdefault(argument.slot, np.full(size + 64, 0xA5, np.uint8))
        return self.status
