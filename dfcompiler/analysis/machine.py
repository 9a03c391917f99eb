"""What a machine does in a second, as far as predictions of kernels need to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dfcompiler.target import CpuTarget, CudaTarget, Target

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
        gpu: the device, whose products have a model of their own; None for a processor.
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
    gpu: CudaTarget | None = None

    @staticmethod
    def nominal(target: Target, threads: int = 0) -> Machine:
        """A machine as specified: the same for equal targets, for decisions at compile time.

        Of a processor, the clock is taken to be 3 GHz; a core does two vector multiply-adds and
        moves half a vector from its L2 in a cycle; each thread adds 20 GB/s from the last cache,
        12 GB/s from memory.
        """
        if isinstance(target, CudaTarget):
            return _nominal_gpu(target)
        return _nominal_cpu(target, threads or target.cores)


def _nominal_cpu(target: CpuTarget, threads: int) -> Machine:
    cycle_s = 1 / 3e9
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


def _nominal_gpu(target: CudaTarget) -> Machine:
    """A multiprocessor for a core; its L1 for the L2, the L2 of the device for the last cache.

    The clock is taken to be 1.5 GHz; a multiprocessor does 128 multiply-adds and moves 64 bytes
    from the L2 in a cycle; one kernel after another takes 2 us.
    """
    cycle_s = 1 / 1.5e9
    return Machine(
        name=target.name,
        threads=target.multiprocessors,
        tile_flops=2 * 128 / cycle_s,
        l2_bytes=target.shared_bytes,
        l3_bytes=target.l2_bytes,
        l2_rate=128 / cycle_s,
        l3_rate=64 * target.multiprocessors / cycle_s,
        memory_rate=target.memory_rate,
        vector_s=cycle_s / 4,
        vector_bytes=128,
        meet_s=2e-6,
        gpu=target,
    )
