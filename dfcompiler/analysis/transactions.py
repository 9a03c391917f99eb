"""What reading or writing a tensor in some order costs, by the transactions that it takes.

A memory serves whole lines. Walking a tensor along its physical order takes a line after the other;
walking it in another order takes runs of neighbours, each of at least a line, and the rest of a
line is moved in vain.

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
    """

    bandwidth: float
    line_bytes: int
    latency_s: float
    concurrency: float
    overhead_s: float

    @staticmethod
    def nominal(machine: Machine) -> Memory:
        """A memory as specified: the same for equal machines.

        A core has a dozen lines on their way, and waits 100 ns for one.
        """
        line = LINE_BYTES[machine.name.partition(":")[0]]
        return Memory(machine.stream_rate, line, 100e-9, 12.0 * machine.threads, machine.meet_s)

    def access_s(self, total_bytes: int, run_bytes: int) -> float:
        """Seconds of touching `total_bytes` in runs of `run_bytes` neighbours."""
        if not total_bytes:
            return 0.0
        run = max(1, min(run_bytes, total_bytes))
        transactions = ceil(total_bytes / run) * ceil(run / self.line_bytes)
        moved = transactions * self.line_bytes
        return max(moved / self.bandwidth, transactions * self.latency_s / self.concurrency)

    def copy_s(self, tensor: TensorType, source: Layout, target: Layout) -> float:
        """Seconds of a kernel that changes the order of a concrete tensor.

        It walks the target's order. Where that takes less than a line of the source at once, it
        takes strips of whole lines, so that no line is read twice.
        """
        total = int(tensor.with_shape(tensor.shape).stored_bytes)
        order = target.permutation(tensor.rank)
        run = max(run_bytes(tensor, source, order), self.line_bytes)
        return self.access_s(total, run) + self.access_s(total, total) + self.overhead_s


def run_bytes(tensor: TensorType, layout: Layout, order: Sequence[int]) -> int:
    """Bytes that lie together when a concrete tensor in `layout` is walked in `order`.

    Args:
        tensor: shape and element type.
        layout: the physical order, without tiles.
        order: the axes from the outermost loop to the innermost one.
    """
    extents = tuple(map(int, tensor.shape))
    physical = [a for a in layout.permutation(tensor.rank) if extents[a] != 1]
    walked = [a for a in order if extents[a] != 1]
    same = 0
    while same < len(walked) and physical[-1 - same] == walked[-1 - same]:
        same += 1
    return prod(extents[a] for a in walked[len(walked) - same :]) * tensor.dtype.bytes
