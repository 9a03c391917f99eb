"""What operators would cost on the target: the ground on which fusions are declined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.time_model import predicted_s
from dfcompiler.ir import Layout, Op, PhysicalAxis, TensorType
from dfcompiler.ir.dims import evaluate
from dfcompiler.pipeline import Bindings
from dfcompiler.target import CpuTarget, CudaTarget, Target


class Prices(Protocol):
    """Predicted times at one binding of the symbols."""

    def seconds(self, ops: Iterable[Op], types: Mapping[str, TensorType]) -> float:
        """Seconds of operators one after the other; `types` has what they read from outside."""


def prices_on(target: Target, sizes: Bindings) -> Prices:
    """The prices of a target."""
    return CpuPrices(target, sizes) if isinstance(target, CpuTarget) else GpuPrices(target, sizes)


class CpuPrices:
    """The time model of CPU kernels, weights taken to be packed."""

    def __init__(self, target: CpuTarget, sizes: Bindings) -> None:
        self.machine, self.sizes = Machine.nominal(target), sizes
        columns = target.gemm_nr
        self.panels = Layout(
            (PhysicalAxis(1, columns), PhysicalAxis(0), PhysicalAxis(1, columns, True))
        )

    def seconds(self, ops: Iterable[Op], types: Mapping[str, TensorType]) -> float:
        """Seconds of operators one after the other; `types` has what they read from outside."""
        known, total = dict(types), 0.0
        for op in ops:
            found = tuple(self._packed(name, known[name]) for name in op.inputs)
            total += predicted_s(op, found, self.sizes, self.machine)
            known[op.result] = op.type
        return total

    def _packed(self, name: str, tensor: TensorType) -> TensorType:
        """The type of an operand as the kernel will find it."""
        matrix = name.startswith("@") and tensor.rank == 2 and tensor.layout.is_row_major
        return (
            TensorType(tensor.dtype, tensor.shape, self.panels, tensor.encoding)
            if matrix
            else tensor
        )


class GpuPrices:
    """Launches and bytes of operands and results: fusions do not change what is multiplied.

    Slices of merged products are views, and a gather moves as many rows as it gives.
    """

    def __init__(self, target: CudaTarget, sizes: Bindings) -> None:
        self.machine, self.sizes = Machine.nominal(target), sizes

    def seconds(self, ops: Iterable[Op], types: Mapping[str, TensorType]) -> float:
        """Seconds of operators one after the other; `types` has what they read from outside."""
        known, total = dict(types), 0.0
        for op in ops:
            if op.kind not in ("slice", "constant"):
                total += self.machine.meet_s + self._bytes(op, known) / self.machine.memory_rate
            known[op.result] = op.type
        return total

    def _bytes(self, op: Op, types: Mapping[str, TensorType]) -> int:
        tables = {i.inputs[0] for i in op.region or (op,) if i.kind == "gather"}
        moved = [op.type if name in tables else types[name] for name in op.inputs]
        return sum(evaluate(tensor.stored_bytes, self.sizes) for tensor in (*moved, op.type))


def show_seconds(seconds: float) -> str:
    """Microseconds with one decimal."""
    return f"{seconds * 1e6:.1f} us"
