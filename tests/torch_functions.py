"""Functions on torch tensors, exported, imported and compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dfcompiler.importers.torch_export import import_exported
from dfcompiler.ir import Program, interpret
from tests.tolerances import assert_close


class Apply(nn.Module):
    """A function as a module, so that it can be exported."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def check(
    function: Callable[..., Any],
    *inputs: torch.Tensor,
    dynamic: Any = None,
    decompose: bool = True,
) -> Program:
    """Imports `function`, undecomposed and decomposed, and compares it with torch."""
    module = Apply(function).eval()
    with torch.no_grad():
        expected = function(*inputs)
    expected = list(expected) if isinstance(expected, tuple | list) else [expected]
    shapes = None if dynamic is None else {"inputs": dynamic}
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes)
    programs = [import_exported(exported)]
    if decompose:
        programs.append(import_exported(exported.run_decompositions()))
    for program in programs:
        names = [container.name for container in program.inputs]
        given = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
        actual = list(interpret(program, given).values())
        assert len(actual) == len(expected)
        for found, wanted in zip(actual, expected, strict=True):
            assert_close(found, wanted.numpy())
    return programs[0]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
