"""Programs lowered for a GPU, generated, compiled by g++ and run with numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from dfcompiler.codegen.dace_sources import generate_program
from dfcompiler.codegen.library import PRELUDE
from dfcompiler.codegen.units import family_units, program_units
from dfcompiler.codegen.weights import pack
from dfcompiler.ir import Program, parse
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.interpret import bind_symbols
from dfcompiler.lowering import Argument, lower
from dfcompiler.lowering.symbolic import program_name
from dfcompiler.target import parse_target
from tests.cuda_emulation.library import EmulationError, Library
from tests.cuda_emulation.sources import compile_emulated

_FAILURE = """
#include "cuda/check.h"
#include "cuda/loop.h"
extern "C" int emulated_failure(const char** step) {
  *step = dfc::cuda::failure().step;
  return dfc::cuda::failure().code;
}
extern "C" void emulated_begin_call() {
  static std::vector<cudaGraphExec_t> kept;
  static dfc::cuda::Loops loops;
  dfc::cuda::forget_loops(&kept);
  loops.kept = &kept;
  dfc::cuda::loops_of_call() = &loops;
  dfc::cuda::clear_failure();
}
"""


class EmulatedModel:
    """A program's CUDA code that can be called.

    Attributes:
        program: the program.
        lowered: its graph.
        persistent: contents of the persistent containers, by name.
        status: what the last call reported about indices: site, value.
    """

    def __init__(
        self,
        program: Program | str,
        target: str = "cuda:sm_90",
        expansions: Mapping[str, str] | None = None,
    ) -> None:
        self.program = parse(program) if isinstance(program, str) else program
        self.target = parse_target(target)
        self.lowered = lower(self.program, self.target, expansions)
        self.persistent: dict[str, np.ndarray] = {}
        self.status = np.zeros(2, np.int64)

    @cached_property
    def files(self) -> dict[str, str]:
        """The sources, as in an artifact."""
        generated = generate_program(self.lowered.sdfg, PRELUDE, self.lowered.work)
        units = program_units(generated, self.target) + family_units(self.lowered.instances)
        return {name: text for unit in units for name, text in unit.files.items()}

    @cached_property
    def library(self) -> Library:
        """Their library."""
        program = f"{self.files['program.cpp']}{_FAILURE}"
        return Library(compile_emulated({**self.files, "program.cpp": program}))

    def run(
        self, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int] | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs by name.

        Raises:
            EmulationError: if a kernel fails, or the result depends on the order of threads.
        """
        bindings = dict(symbols or {})
        bindings |= bind_symbols(self.program, {n: a.shape for n, a in inputs.items()})
        buffers: dict[tuple[str, str], np.ndarray] = {}
        for argument in self.lowered.arguments:
            if _key(argument) not in buffers:
                buffers[_key(argument)] = self._buffer(argument, inputs, bindings)
        run = self._call([buffers[_key(a)] for a in self.lowered.arguments], bindings)
        self.library.in_both_orders(run, [*buffers.values()])
        outputs = {}
        for (role, name), buffer in buffers.items():
            match role:
                case "persist":
                    self.persistent[name] = buffer.copy()
                case "status":
                    self.status = buffer.copy()
                case "output":
                    outputs[name] = buffer.copy()
        return outputs

    def _call(self, arrays: list[np.ndarray], bindings: Mapping[str, int]) -> Callable[[], None]:
        functions, name = self.library.functions, self.lowered.sdfg.name
        names = self.lowered.sdfg.init_signature(for_call=True).split(", ")
        first = [ctypes.c_int64(bindings[program_name(n)]) for n in names if n]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        values = [ctypes.c_int64(bindings[symbol]) for symbol in self.lowered.symbols]
        init, call = functions[f"__dace_init_{name}"], functions[f"__program_{name}"]
        init.restype = ctypes.c_void_p
        step = ctypes.c_char_p()

        def run() -> None:
            functions.emulated_begin_call()
            handle = ctypes.c_void_p(init(*first))
            call(handle, *pointers, *values)
            functions[f"__dace_exit_{name}"](handle)
            code = functions.emulated_failure(ctypes.byref(step))
            message = functions.emulation_message()
            if code and not message:
                raise EmulationError(f"{(step.value or b'').decode()} failed with code {code}")

        return run

    def _buffer(
        self, argument: Argument, inputs: Mapping[str, np.ndarray], bindings: Mapping[str, int]
    ) -> np.ndarray:
        """The memory of an argument, as it is before a call."""
        library, name = self.library, argument.container
        declared = argument.memory or argument.type
        shape = tuple(evaluate(dim, bindings) for dim in declared.shape)
        dtype = declared.dtype.numpy
        match argument.role:
            case "input":
                return library.copy(inputs[name])
            case "weight":
                return library.weight(pack(self.program.data[name], declared.layout))
            case "persist":
                start = self.program.data.get(name, np.zeros(shape, dtype))
                return library.copy(self.persistent.get(name, start))
            case "output":
                return library.array(shape, dtype)
            case "value":
                members = [a for a in self.lowered.arguments if a.slot == argument.slot]
                types = [a.type for a in members if a.memory is None]
                size = max(evaluate(member.stored_bytes, bindings) for member in types)
                return library.array((size,), np.uint8)
        return library.copy(np.zeros(2, np.int64))


def _key(argument: Argument) -> tuple[str, str]:
    """Arguments with the same key are the same memory."""
    return argument.role, argument.slot if argument.role == "value" else argument.container


def emulated_model(
    program: Program | str,
    target: str = "cuda:sm_90",
    expansions: Mapping[str, str] | None = None,
) -> EmulatedModel:
    """The CUDA code of a program, as a function of numpy arrays."""
    return EmulatedModel(program, target, expansions)
