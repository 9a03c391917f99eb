"""CUDA code on the host: kernels and generated programs compiled by g++ and run thread by thread.

What it finds: barriers and warp operations that not all threads reach, accesses outside of a
buffer or an array, misaligned ones, uses of memory that nothing has written (it is NaN), shared
memory that a copy has not reached yet, results that depend on the order of threads, and kernels
that begin early and touch what the kernel before them may still write.
"""

from tests.cuda_emulation.library import EmulationError, Library
from tests.cuda_emulation.model import EmulatedModel, emulated_model
from tests.cuda_emulation.sources import compile_emulated, toolkit

__all__ = [
    "EmulatedModel",
    "EmulationError",
    "Library",
    "build",
    "emulated_model",
    "toolkit",
]


def build(*sources: str) -> Library:
    """The library of some CUDA sources."""
    named = {f"unit{i}.cu": source for i, source in enumerate(sources)}
    return Library(compile_emulated(named))
