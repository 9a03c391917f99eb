"""Import from torch: buffers that a model writes become state that outlives a call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dfcompiler.importers.torch_export import import_module
from dfcompiler.importers.torch_export.mutation import write_buffers
from dfcompiler.ir import DType, Op, Role, TensorType, interpret
from tests.tolerances import assert_close
from tests.torch_functions import random


class Counter(nn.Module):
    """Keeps a running sum, and how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.ones(3))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = self.total * 2
        self.total.add_(x)
        self.calls += 1
        return before, self.total, self.total - before


class Swap(nn.Module):
    """Two buffers that trade places."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("left", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("right", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = self.left.clone()
        self.left.copy_(self.right)
        self.right.copy_(left)
        return self.left + x


class Shift(nn.Module):
    """A buffer that moves to the next one before it changes, and one that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("new", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("old", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.old.copy_(self.new)
        self.new.add_(x)
        return self.old * self.new


class Rows(nn.Module):
    """Writes rows twice and reads the table before, between and after."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(4, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = self.table.sum(0)
        self.table.index_copy_(0, torch.tensor([1]), x[None])
        between = self.table.sum(0)
        self.table[2] = x * 2
        self.table[:2] += 1
        return before, between, self.table.sum(0)


@pytest.mark.parametrize("kind", [Counter, Swap, Shift, Rows])
def test_buffers_persist(kind: type[nn.Module]) -> None:
    module, x = kind(), random(3)
    program = import_module(kind(), (x,))
    persistent: dict[str, np.ndarray] = {}
    for call in range(3):
        with torch.no_grad():
            expected = module(x + call)
        results = expected if isinstance(expected, tuple) else (expected,)
        wanted = [result.clone().numpy() for result in results]
        actual = interpret(program, {"x": (x + call).numpy()}, persistent=persistent)
        for found, right in zip(actual.values(), wanted, strict=True):
            assert_close(found, right)
    for name, buffer in module.named_buffers():
        assert_close(persistent[name], buffer.numpy(), name)
    kept = {c.name for c in program.by_role(Role.PERSIST)}
    assert kept == dict(module.named_buffers()).keys()


def test_zero_buffers_need_no_data() -> None:
    assert import_module(Counter(), (random(3),)).data.keys() == {"total"}


def test_updates_happen_in_place() -> None:
    program = import_module(Rows(), (random(3),))
    writes = [op for op in program.ops() if op.result == "@table"]
    assert writes
    assert all(op.kind == "index_copy" and op.inputs[0] == "@table" for op in writes)


def test_a_value_for_two_buffers_is_written_to_one_and_copied_to_the_other() -> None:
    vector = TensorType(DType.F32, (3,))
    ops = [Op("%0", vector, "add", ("@left", "@x"))]
    types = {"%0": vector, "@left": vector, "@right": vector}
    assert write_buffers(ops, {"@left": "%0", "@right": "%0"}, types) == (
        Op("@left", vector, "add", ("@left", "@x")),
        Op("%old0", vector, "copy", ("@left",)),
        Op("@right", vector, "copy", ("%old0",)),
    )


def test_a_buffer_that_keeps_its_contents_is_not_written() -> None:
    assert write_buffers([], {"@left": "@left"}, {}) == ()
