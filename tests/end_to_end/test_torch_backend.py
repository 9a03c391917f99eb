"""``torch.compile(model, backend="dfcompiler")`` computes what torch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

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
