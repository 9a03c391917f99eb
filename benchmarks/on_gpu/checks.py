"""Cases of `benchmarks.gpu` that are not timed: modules of many small outputs, each judged alone.

An artifact has one family of kernels in one element type, so that a crash tells which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.on_gpu.cases import Case

PREFIX = "check_"
"""Beginning of the names of cases that are checked and not timed."""


@dataclass(frozen=True)
class Index:
    """An input of whole numbers from 0 up to `below`."""

    shape: tuple[int, ...]
    below: int


Spec = tuple[int, ...] | Index
"""An input: normally distributed numbers of a shape, or indices."""


@dataclass(frozen=True)
class Part:
    """One output.

    Attributes:
        build: makes what computes it.
        inputs: those of it alone.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Spec, ...]


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Parts(nn.Module):
    """Modules side by side; inputs of part ``p`` are ``p_0``, ``p_1``, …, its output is ``p``."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        given: dict[str, list[Tensor]] = {name: [] for name in self.parts}
        for name, value in inputs.items():
            given[name.rpartition("_")[0]].append(value)
        return {name: part(*given[name]) for name, part in self.parts.items()}


def applied(function: Callable[..., Tensor], *inputs: Spec) -> Part:
    """A part without weights."""
    return Part(lambda: Applied(function), inputs)


@dataclass(frozen=True)
class Check(Case):
    """A case of `Parts`: `inputs` are the shapes, `below` has those that are indices."""

    below: tuple[tuple[str, int], ...] = ()

    def example(self, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """Normally distributed inputs, and indices."""
        found = super().example(seed, device)
        generator = torch.Generator().manual_seed(seed)
        for name, below in self.below:
            indices = torch.randint(below, self.inputs[name], generator=generator)
            found[name] = indices.to(device)
        return found


def check(
    family: str,
    dtype: torch.dtype,
    parts: Mapping[str, Part],
    expansions: tuple[tuple[str, str], ...] = (),
) -> Check:
    """The case of a family of kernels in one element type."""
    specs = {
        f"{name}_{i}": spec for name, part in parts.items() for i, spec in enumerate(part.inputs)
    }
    return Check(
        f"{PREFIX}{family}_{str(dtype).removeprefix('torch.')}",
        dtype,
        partial(_built, parts),
        {name: spec.shape if isinstance(spec, Index) else spec for name, spec in specs.items()},
        expansions=expansions,
        peers=(),
        below=tuple((name, spec.below) for name, spec in specs.items() if isinstance(spec, Index)),
    )


def _built(parts: Mapping[str, Part]) -> Parts:
    return Parts({name: part.build() for name, part in parts.items()})
