"""What reading or writing a tensor in some order costs, by the transactions that it takes.

A memory serves whole lines. Walking a tensor along its physical order takes one line after the
other; walking it in another order takes runs of neighbours. The rest of a run's last line is moved
in vain, unless it is still in fast memory when the walk comes back to it.

    seconds = max(bytes / bandwidth, transactions · latency / concurrency) + overhead
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from dfcompiler.analysis.machine import Machine
from dfcompiler.ir.types import Layout, TensorType

LINE_BYTES = {"cpu": 64, "cuda": 32}
"""Bytes of a transaction: a cache line, or a sector."""


@dataclass(frozen=True)
class Memory:
    """A memory as seen by all threads together.

    Attributes:
        bandwidth: bytes a second.
        line_bytes: bytes of a transaction.
        latency_s: seconds from asking for a line to having it.
        concurrency: lines that can be on their way at once.
        overhead_s: seconds for a kernel to begin and end.
        fast_bytes: the faster memory in front of it, of one thread.
    """

    bandwidth: float
    line_bytes: int
    latency_s: float
    concurrency: float
    overhead_s: float
    fast_bytes: int

    @staticmethod
    def nominal(machine: Machine) -> Memory:
        """What is behind the fast memory of each core, as specified.

        Of a processor that is the last-level cache: a core has a dozen lines on their way, and
        waits 100 ns for one. Of a GPU it is the device's memory: a multiprocessor has 700 sectors
        on their way, and waits 600 ns.
        """
        on_gpu = machine.name.startswith("cuda")
        return Memory(
            bandwidth=machine.memory_rate if on_gpu else machine.l3_rate,
            line_bytes=LINE_BYTES["cuda" if on_gpu else "cpu"],
            latency_s=600e-9 if on_gpu else 100e-9,
            concurrency=(700.0 if on_gpu else 12.0) * machine.threads,
            overhead_s=machine.meet_s,
            fast_bytes=machine.l2_bytes,
        )

    def run_s(self, total_bytes: int, run_bytes: int) -> float:
        """Seconds of touching `total_bytes` in runs of `run_bytes` neighbours, each on its own."""
        if not total_bytes:
            return 0.0
        run = max(1, min(run_bytes, total_bytes))
        transactions = ceil(total_bytes / run) * ceil(run / self.line_bytes)
        moved = transactions * self.line_bytes
        return max(moved / self.bandwidth, transactions * self.latency_s / self.concurrency)

    def walk_s(self, tensor: TensorType, layout: Layout, order: Sequence[int]) -> float:
        """Seconds of walking a concrete tensor in `layout` along the axes in `order`."""
        total = int(tensor.with_shape(tensor.shape).stored_bytes)
        run, between = runs(tensor, layout, order)
        if between * self.line_bytes <= self.fast_bytes:
            run = max(run, self.line_bytes)
        return self.run_s(total, run)

    def copy_s(self, tensor: TensorType, source: Layout, target: Layout) -> float:
        """Seconds of a kernel that changes the order of a concrete tensor.

        It walks the target's order. Where that takes less than a line of the source at once, it
        takes strips of whole lines, so that no line is read twice.
        """
        total = int(tensor.with_shape(tensor.shape).stored_bytes)
        run, _ = runs(tensor, source, target.permutation(tensor.rank))
        read = self.run_s(total, max(run, self.line_bytes))
        return read + self.run_s(total, total) + self.overhead_s


def runs(tensor: TensorType, layout: Layout, order: Sequence[int]) -> tuple[int, int]:
    """Bytes that lie together when a tensor is walked, and runs until the walk comes back.

    Args:
        tensor: concrete shape and element type.
        layout: the physical order, without tiles.
        order: the axes from the outermost loop to the innermost one.

    Returns:
        Bytes of a run, and how many runs are walked before the one behind it in memory.
    """
    extents = tuple(map(int, tensor.shape))
    physical = [a for a in layout.permutation(tensor.rank) if extents[a] != 1]
    walked = [a for a in order if extents[a] != 1]
    run = tensor.dtype.bytes
    while walked and physical[-1] == walked[-1]:
        run *= extents[walked.pop()]
        physical.pop()
    if not walked:
        return run, 0
    inside = walked[walked.index(physical[-1]) + 1 :]
    return run, prod(extents[a] for a in inside)
