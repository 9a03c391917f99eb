"""What a machine does in a second, as far as predictions of kernels need to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dfcompiler.target import CpuTarget

LARGEST_L3 = 64 << 20
"""The most of a last-level cache that one process counts on."""

Weights = Mapping[str, Mapping[str, float]]
"""For each family of kernels: how much of each feature's time it takes."""


@dataclass(frozen=True)
class Machine:
    """Rates of one core and of all threads together.

    A rate says what the hardware allows; `weights` say how close the kernels of one family come
    (1: they reach it). Both are nominal for an instruction set, or measured by a calibration.

    Attributes:
        name: the processor.
        threads: threads of a call.
        tile_flops: fp32 operations a second of one core's register tile fed from its L1.
        l2_bytes: second-level cache of one core.
        l3_bytes: last-level cache that a call can count on: machines are shared.
        l2_rate: bytes a second from one core's L2.
        l3_rate: bytes a second from the last-level cache, of all threads together.
        memory_rate: bytes a second from memory, of all threads together.
        vector_s: seconds for one vector instruction of one core.
        vector_bytes: bytes of a vector.
        meet_s: seconds for the threads to meet at the end of a kernel.
        weights: by family of kernels, by feature of `analysis.time_model`.
    """

    name: str
    threads: int
    tile_flops: float
    l2_bytes: int
    l3_bytes: int
    l2_rate: float
    l3_rate: float
    memory_rate: float
    vector_s: float
    vector_bytes: int
    meet_s: float
    weights: Weights = field(default_factory=dict)

    @staticmethod
    def nominal(target: CpuTarget, threads: int = 0) -> Machine:
        """A machine as specified: the same for equal targets, for decisions at compile time.

        The clock is taken to be 3 GHz; a core does two vector multiply-adds and moves half a vector
        from its L2 in a cycle; each thread adds 20 GB/s from the last cache, 12 GB/s from memory.
        """
        threads, cycle_s = threads or target.cores, 1 / 3e9
        return Machine(
            name=target.name,
            threads=threads,
            tile_flops=0.9 * 4 * target.vector_floats / cycle_s,
            l2_bytes=target.l2_bytes,
            l3_bytes=min(target.l3_bytes, LARGEST_L3),
            l2_rate=target.vector_bytes / 2 / cycle_s,
            l3_rate=20e9 * threads,
            memory_rate=12e9 * threads,
            vector_s=cycle_s / 2,
            vector_bytes=target.vector_bytes,
            meet_s=0.5e-6,
        )
