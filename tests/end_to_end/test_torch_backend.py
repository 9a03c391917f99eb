"""``torch.compile(model, backend="dfcompiler")`` computes what torch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dfcompiler import Model, api
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir import Program
from models import bert
from tests.tolerances import assert_close


def test_it_is_registered() -> None:
    assert "dfcompiler" in torch.compiler.list_backends()


def test_a_module_gives_the_same_numbers_at_every_size() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 4)).eval()
    compiled = torch.compile(module, backend="dfcompiler")
    with torch.no_grad():
        for rows in (1, 3):
            x = torch.randn(rows, 8)
            assert_close(compiled(x).numpy(), module(x).numpy(), f"{rows} rows")


def test_bert_gives_the_same_numbers() -> None:
    module, inputs = bert.build(), bert.example_inputs()
    compiled = torch.compile(module, backend="dfcompiler")
    with torch.no_grad():
        found = compiled(**inputs).last_hidden_state
        assert_close(found.numpy(), module(**inputs).last_hidden_state.numpy())


def test_gradients_are_refused() -> None:
    compiled = torch.compile(nn.Linear(2, 2), backend="dfcompiler")
    with pytest.raises(Exception, match="computes no gradients"):
        compiled(torch.ones(1, 2))


def test_changed_weights_are_seen() -> None:
    module = nn.Linear(2, 2).eval()
    compiled = torch.compile(module, backend="dfcompiler")
    x = torch.ones(1, 2)
    with torch.no_grad():
        before = compiled(x).numpy()
        np.testing.assert_allclose(before, module(x).numpy(), rtol=1e-6)
        module.weight += 1
        np.testing.assert_allclose(compiled(x).numpy(), module(x).numpy(), rtol=1e-6)


def test_one_program_serves_dynamic_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_programs = []
    original = api.compile

    def counted(program: Program) -> Model:
        compiled_programs.append(program)
        return original(program)

    monkeypatch.setattr(api, "compile", counted)
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    compiled = torch.compile(module, backend="dfcompiler", dynamic=True)
    with torch.no_grad():
        for rows in (2, 5, 9):
            x = torch.randn(rows, 4)
            assert_close(compiled(x).numpy(), module(x).numpy(), f"{rows} rows")
    assert len(compiled_programs) == 1
    assert len(compiled_programs[0].weights) + len(compiled_programs[0].inputs) == 2


class Running(nn.Module):
    """Keeps a sum, and gives a view, a size and nothing beside its result."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int, None]:
        self.total += x
        x.mul_(2)
        return self.total * 1.5, x.T, x.shape[0], None


def test_written_buffers_and_inputs() -> None:
    module, reference = Running(), Running()
    compiled = torch.compile(module, backend="dfcompiler")
    with torch.no_grad():
        for call in range(4):
            x, y = torch.full((3, 3), 1.0 + call), torch.full((3, 3), 1.0 + call)
            found, expected = compiled(x), reference(y)
            assert_close(found[0].numpy(), expected[0].numpy())
            assert_close(found[1].numpy(), expected[1].numpy())
            assert found[2:] == (3, None)
            assert_close(x.numpy(), y.numpy())
            assert_close(module.total.numpy(), reference.total.numpy())


def test_operators_that_cannot_be_compiled_are_named() -> None:
    compiled = torch.compile(Missing(), backend="dfcompiler")
    with torch.no_grad(), pytest.raises(UnsupportedError, match=r"aten\.digamma\.default"):
        compiled(torch.ones(3))


class Missing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.digamma(x)
