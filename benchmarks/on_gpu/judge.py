"""What `benchmarks.gpu` checks and does not time: every output of an artifact, and tokens.

A row has ``errors`` and names of ``wrong`` outputs by contestant. What an artifact gives from its
CUDA graph is a contestant of its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.on_gpu.cases import Case
from benchmarks.on_gpu.checks import Check
from benchmarks.on_gpu.generation import Generation, Tokens, expected_tokens
from benchmarks.on_gpu.measure import OURS_AT_MOST, Attempts, error
from benchmarks.on_gpu.peers import opened

Tensors = Mapping[str, Tensor]
DEVICE = "cuda"
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
"""Greatest relative error of one rounding to a type."""
TF32 = 2.0**-11
"""The same, of what is multiplied as tf32."""


class Runs(Protocol):
    """An artifact that is ready to run."""

    def plain(self) -> Any:
        """Runs it."""

    def graph(self) -> Any:
        """Runs it until it is replayed from a CUDA graph."""


def judge(case: Check, folder: Path, attempts: Attempts) -> dict[str, Any]:
    """The error of every output of every artifact, and which are too great."""
    begin, seed, row = time.monotonic(), int(time.time()), _row(case, attempts)
    row["seed"] = seed
    prepared = attempts("reference", partial(reference, case, seed))
    if prepared is not None:
        inputs, exact, of_torch = prepared
        row["errors"]["torch"] = torchs = errors_of(of_torch, exact)
        for name, artifact in case.artifacts.items():
            most = {n: limit(value, of_torch[n].dtype, name) for n, value in torchs.items()}
            make = partial(Outputs, folder / artifact, inputs, of_torch)
            for who, found in _found(name, make, attempts):
                row["errors"][who] = errors = errors_of(found, exact)
                row["wrong"][who] = [n for n, value in errors.items() if not value <= most[n]]
    row["elapsed_s"] = time.monotonic() - begin
    return row


def judge_tokens(case: Generation, folder: Path, attempts: Attempts) -> dict[str, Any]:
    """How many tokens of every call differ, and seconds for each."""
    begin, row = time.monotonic(), _row(case, attempts)
    expected = attempts("reference", lambda: expected_tokens(case.module()))
    if expected is not None:
        row["seconds_a_token"] = {}
        for name, artifact in case.artifacts.items():
            for who, calls in _found(name, partial(Tokens, folder / artifact), attempts):
                row["errors"][who] = wrong = {n: c.differing(expected) for n, c in calls.items()}
                row["wrong"][who] = [call for call, differing in wrong.items() if differing]
                row["seconds_a_token"][who] = min(call.seconds_a_token for call in calls.values())
    row["elapsed_s"] = time.monotonic() - begin
    return row


def _row(case: Case, attempts: Attempts) -> dict[str, Any]:
    dtype = str(case.dtype).removeprefix("torch.")
    known = {"case": case.name, "dtype": dtype, "failed": attempts.failures}
    return {**known, "errors": {}, "wrong": {}}


def _found(name: str, make: Callable[[], Runs], attempts: Attempts) -> Iterator[tuple[str, Any]]:
    """What an artifact gives plainly, and from a graph, as far as it comes."""
    runs = attempts(name, make)
    if runs is None:
        return
    for who, run in ((name, runs.plain), (f"{name}_graph", runs.graph)):
        found = attempts(who, run)
        if found is None:
            return
        yield who, found


def reference(case: Check, seed: int) -> tuple[Tensors, Tensors, Tensors]:
    """Fresh inputs on the device, the outputs in float64, and those of torch."""
    module, inputs = case.module().to(DEVICE), case.example(seed, DEVICE)
    doubles = {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
    exact = copy.deepcopy(module).double()(**doubles)
    return inputs, exact, module(**inputs)


def errors_of(found: Tensors, exact: Tensors) -> dict[str, float]:
    """The relative error of each output."""
    return {name: float(f"{error(found[name], exact[name]):.3g}") for name in exact}


def limit(of_torch: float, dtype: torch.dtype, contestant: str) -> float:
    """The greatest error of ours.

    What torch computes exactly has to be exact. Elsewhere an output may be luckier than one
    rounding; then one rounding is what counts.
    """
    if of_torch in (0.0, float("inf")):
        return 0.0
    rounding = TF32 if contestant == "ours_tf32" else ROUNDING[dtype]
    return OURS_AT_MOST * max(of_torch, rounding)


class Outputs:
    """An artifact with memory for its outputs, which is poisoned before each call."""

    def __init__(self, path: Path, inputs: Tensors, of_torch: Tensors) -> None:
        self._model = opened(path)
        self._inputs = dict(inputs)
        self._poison = {name: poison_for(value) for name, value in of_torch.items()}
        self._targets = {name: value.clone() for name, value in self._poison.items()}

    def plain(self) -> Tensors:
        for name, value in self._poison.items():
            self._targets[name].copy_(value)
        self._model.run(self._inputs, self._targets)
        self._model.synchronize()
        return {name: value.clone() for name, value in self._targets.items()}

    def graph(self) -> Tensors:
        self._model.keep_graphs(True)
        self.plain()  # the second call of equal tensors is captured, the next ones are replays
        self.plain()
        return self.plain()


def poison_for(result: Tensor) -> Tensor:
    """What is no result: not a number, or another whole number or truth value at every place."""
    result = result.contiguous()
    if result.is_floating_point():
        return torch.full_like(result, float("nan"))
    return ~result if result.dtype is torch.bool else result + 1
