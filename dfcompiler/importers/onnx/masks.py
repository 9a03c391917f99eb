"""The minimum that torch's exporter writes into masks for minus infinity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ml_dtypes

from dfcompiler.ir import Attrs, Op, TensorType


def with_minus_infinity(ops: Sequence[Op]) -> list[Op]:
    """Operators in which guarded masks hide by minus infinity, as the guard says.

    torch's exporter writes attention with a bool mask as::

        %m = where @visible, 0, -3.4e38
        %s = add %scores, %m
        %w = softmax %s
        %n = isnan %w
        %z = where %n, 0, %w

    The guard is there for rows in which nothing is visible. They are NaN if what is hidden is minus
    infinity, and torch gives zeros for them; a finite minimum gives the mean of all values instead,
    and the guard never fires. A minimum that only such guarded softmaxes read is therefore taken
    for what it stands for (docs/decisions/0032).
    """
    graph = _Graph.of(ops)
    result: list[Op] = []
    for op in ops:
        position = graph.fill_position(op)
        if position is None or not graph.is_guarded(op.result):
            result.append(op)
            continue
        name = f"{op.result}.hidden"
        scalar = TensorType(op.type.dtype)
        fill = Op(name, scalar, "constant", (), Attrs({"value": float("-inf")}), op.source)
        inputs = tuple(name if i == position else n for i, n in enumerate(op.inputs))
        result += [fill, replace(op, inputs=inputs)]
    return result


@dataclass(frozen=True)
class _Graph:
    producers: dict[str, Op]
    readers: dict[str, list[Op]]

    @staticmethod
    def of(ops: Sequence[Op]) -> _Graph:
        readers: dict[str, list[Op]] = defaultdict(list)
        for op in ops:
            for name in dict.fromkeys(op.inputs):
                readers[name].append(op)
        return _Graph({op.result: op for op in ops}, dict(readers))

    def number(self, name: str) -> float | None:
        """The number that a constant holds in all its elements."""
        op = self.producers.get(name)
        while op is not None and op.kind in ("expand", "reshape"):
            op = self.producers.get(op.inputs[0])
        value = op.attr("value") if op is not None and op.kind == "constant" else None
        return float(value) if isinstance(value, int | float) else None

    def fill_position(self, op: Op) -> int | None:
        """Which input of an additive mask is its dtype's minimum, beside zero."""
        if op.kind != "where" or not op.type.dtype.is_float:
            return None
        # Printed with few digits, the minimum may lie a little below itself.
        least = float(ml_dtypes.finfo(op.type.dtype.numpy).min) * (1 - 2**-20)
        for fill, zero in ((2, 1), (1, 2)):
            number = self.number(op.inputs[fill])
            if number is not None and number <= least and self.number(op.inputs[zero]) == 0:
                return fill
        return None

    def is_guarded(self, name: str) -> bool:
        """Whether all that reads a mask are sums, and all that read those, guarded softmaxes."""
        readers = self.readers.get(name, [])
        return bool(readers) and all(self._masks(op) for op in readers)

    def _masks(self, op: Op) -> bool:
        if op.kind in ("expand", "reshape"):
            return self.is_guarded(op.result)
        if op.kind != "add":
            return False
        softmaxes = self.readers.get(op.result, [])
        return bool(softmaxes) and all(
            softmax.kind == "softmax" and self._is_nan_guarded(softmax.result)
            for softmax in softmaxes
        )

    def _is_nan_guarded(self, weights: str) -> bool:
        tests = [op.result for op in self.readers.get(weights, []) if op.kind == "isnan"]
        others = [op for op in self.readers.get(weights, []) if op.kind != "isnan"]
        return bool(others) and all(
            op.kind == "where"
            and op.inputs[0] in tests
            and self.number(op.inputs[1]) == 0
            and op.inputs[2] == weights
            for op in others
        )
