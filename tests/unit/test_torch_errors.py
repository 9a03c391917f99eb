"""What torch models that cannot be compiled say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dfcompiler.errors import ModelError, UnsupportedError
from dfcompiler.importers.torch_export import import_exported, import_module, load_exported
from tests.torch_functions import Apply


def refused(function: Callable[..., Any], x: torch.Tensor | None = None) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        import_module(Apply(function), (torch.ones(4, 4) if x is None else x,))
    return caught.value


def test_all_missing_operators_are_listed_with_their_nodes() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Apply(torch.digamma)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.det(self.inner(x)) + torch.digamma(x) + torch.erfinv(x)

    with pytest.raises(UnsupportedError) as caught:
        import_module(Two(), (torch.ones(4, 4),))
    error = caught.value
    assert error.exit_code == 4
    assert "operators that cannot be compiled" in error.message
    text = "\n".join(error.where)
    assert "aten.digamma.default: inner/digamma, digamma_1" in text
    assert "aten.erfinv.default: erfinv" in text
    assert "det" in text


def test_all_unsupported_uses_are_listed() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        bits = x.to(torch.int64) & 3
        image = x.reshape(1, 1, 4, 4)
        return functional.conv2d(image, torch.ones(1, 1, 3, 3)) + bits.sum()

    error = refused(function)
    assert len(error.where) == 2
    assert any("combines the bits of integers" in line for line in error.where)
    assert any("windows that overlap" in line for line in error.where)


def test_training_mode_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_module(nn.Sequential(nn.Dropout(0.5)).train(), (torch.ones(3),))
    assert "module.eval()" in str(caught.value)
    assert "0/dropout" in str(caught.value)


def test_shapes_that_depend_on_values() -> None:
    class Selected(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0]

    exported = torch.export.export(Selected(), (torch.ones(4),))
    with pytest.raises(UnsupportedError, match=r"mask|values of a tensor"):
        import_exported(exported)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.to(torch.complex64) * 2, "complex64"),
        (lambda x: x[:, 4:], "takes no element"),
        (lambda x: torch.where(x > 0, x, 0) << 1, "lshift"),
        (lambda x: torch.nn.functional.pad(x[None], (1, 1), mode="reflect"), "reflect"),
    ],
)
def test_reasons(function: Callable[..., Any], reason: str) -> None:
    x = torch.ones(4, 4, dtype=torch.int64) if reason == "lshift" else None
    assert reason in str(refused(function, x))


def test_inputs_that_are_written() -> None:
    assert "writes to one of its inputs" in str(refused(lambda x: x.add_(1)))


def test_control_flow_that_torch_cannot_export() -> None:
    with pytest.raises(ModelError, match=r"torch\.export cannot export Apply") as caught:
        import_module(Apply(lambda x: x + 1 if x.sum() > 0 else x), (torch.ones(3),))
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


def test_a_wrong_bound_is_explained() -> None:
    shapes = {"x": {0: torch.export.Dim("rows", max=9)}}
    with pytest.raises(ModelError):
        import_module(Apply(lambda x: x.reshape(4, 4)), (torch.ones(4, 4),), shapes)


def test_a_file_that_is_no_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"model\.pt2 is no program"):
        load_exported(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Apply(torch.neg), (torch.ones(3),)), path)
    whole = path.read_bytes()
    import_exported(load_exported(path))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        load_exported(path)
