"""``torch.compile`` for a GPU: its options, and a graph whose code is emulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dfcompiler
from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.runtime import load
from dfcompiler.torch_backend import backend
from tests.cuda_emulation.artifact import emulate_artifact
from tests.unit.test_cuda_artifact import has_nvcc

GPU = {"target": "cuda:sm_90"}


class Shifted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.linspace(-1, 1, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.shift)


@pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")
def test_the_target_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dfcompiler.compile

    def emulated(program: Any, **options: Any) -> Any:
        assert options == GPU
        artifact = made(program, tmp_path / "gpu.dfc", **options).path
        return load(emulate_artifact(artifact, tmp_path / "emulated.dfc"))

    monkeypatch.setattr("dfcompiler.api.compile", emulated)
    torch._dynamo.reset()
    model, x = Shifted().eval(), torch.randn(5, 64)
    with torch.no_grad():
        found = torch.compile(model, backend="dfcompiler", options=GPU)(x)
        torch.testing.assert_close(found, model(x))


def graph_and_input(device: str = "cpu") -> tuple[torch.fx.GraphModule, list[torch.Tensor]]:
    return torch.fx.symbolic_trace(torch.nn.ReLU()), [torch.empty(3, device=device)]


def test_options_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="no option mode; expected one of target"):
        backend(*graph_and_input(), options={"mode": "fast"})
    with pytest.raises(UsageError, match="target 'cuda:sm_12' is not known"):
        backend(*graph_and_input(), options={"target": "cuda:sm_12"})


@pytest.mark.parametrize(("options", "expected"), [({}, "cpu"), (GPU, "cpu or cuda")])
def test_tensors_of_another_device(options: dict[str, str], expected: str) -> None:
    said = f"the model is on meta; expected {expected}$"
    with torch.no_grad(), pytest.raises(UnsupportedError, match=said):
        backend(*graph_and_input("meta"), options=options)
