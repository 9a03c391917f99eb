"""A timed case of `benchmarks.gpu`: contestants are checked, and those who are right timed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.on_gpu.cases import Case
from benchmarks.on_gpu.peers import Contestant, MissingError, Work, ready
from benchmarks.on_gpu.timing import take_turns

OURS_AT_MOST, PEERS_AT_MOST = 1.5, 10.0
"""Greatest error, over that of torch in the same precision. Ours beyond it is wrong; a peer beyond
it has not computed the same."""
Found = TypeVar("Found")


class WrongError(Exception):
    """A result that is too far from the exact one."""


@dataclass
class Attempts:
    """Runs contestants of a case one by one, and keeps why some of them are out.

    Attributes:
        begin: told whose turn it is.
        fail: told who failed, and why.
        check: raises if the device cannot be used any more.
        failures: by contestant.
    """

    begin: Callable[[str], None]
    fail: Callable[[str, str], None]
    check: Callable[[], object]
    failures: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, function: Callable[[], Found]) -> Found | None:
        """What `function` gives; None if this contestant fails, now or before."""
        if name in self.failures:
            return None
        self.begin(name)
        try:
            return function()
        except (MissingError, WrongError) as error:
            self._out(name, str(error))
        except Exception as error:  # whatever it is, the others go on
            self._out(name, sentence(error))
        self.check()
        return None

    def _out(self, name: str, why: str) -> None:
        self.failures[name] = why
        self.fail(name, why)


def measure(case: Case, folder: Path, attempts: Attempts) -> dict[str, Any]:
    """Errors, seconds in every round, and failures of a case.

    A contestant is timed only if its result is right, also from its CUDA graph.
    """
    begin, seed = time.monotonic(), int(time.time())
    row: dict[str, Any] = {
        "case": case.name,
        "dtype": str(case.dtype).removeprefix("torch."),
        "flops": case.flops,
        "moved_bytes": case.moved_bytes,
        "seed": seed,
        "errors": {},
        "rounds": {},
        "failed": attempts.failures,
    }
    prepared = attempts("reference", partial(reference, case, folder, seed))
    if prepared is not None:
        work, exact = prepared
        row["errors"]["torch"] = error(work.output, exact)
        judge = partial(judged, row["errors"], exact)
        plain: dict[str, Contestant] = {}
        for name in (*case.artifacts, *case.peers):
            found = attempts(name, partial(judge, name, partial(ready, name, work)))
            if found is not None:
                plain[name] = found
        row["rounds"] |= take_turns({n: c.timed for n, c in plain.items()}, attempts)
        graphs: dict[str, Contestant] = {}
        for name, contestant in plain.items():
            if contestant.with_graph is None or name in attempts.failures:
                continue
            graph = f"{name}_graph"
            found = attempts(graph, partial(judge, graph, contestant.with_graph))
            if found is not None:
                graphs[graph] = found
        row["rounds"] |= take_turns({n: c.timed for n, c in graphs.items()}, attempts)
    row["elapsed_s"] = time.monotonic() - begin
    return row


def reference(case: Case, folder: Path, seed: int) -> tuple[Work, Tensor]:
    """The case on the device with fresh inputs, and its result in float64."""
    module = case.module().cuda()
    inputs = case.example(seed, "cuda")
    exact = exact_of(module, inputs, case.apart)
    torch.cuda.empty_cache()  # others allocate memory, too
    return Work(case, folder, module, inputs, module(*inputs.values())), exact


def exact_of(module: nn.Module, inputs: Mapping[str, Tensor], apart: int | None = None) -> Tensor:
    """The result in float64, one index of the axis `apart` at a time."""
    wide = copy.deepcopy(module).double()
    if apart is None:
        return _tensor(wide(*(value.double() for value in inputs.values())))
    parts = zip(*(value.split(1, apart) for value in inputs.values()), strict=True)
    return torch.cat([wide(*(value.double() for value in part)) for part in parts], apart)


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def judged(
    errors: dict[str, float], exact: Tensor, name: str, make: Callable[[], Contestant]
) -> Contestant:
    """The contestant that is made, if its result is right.

    Raises:
        WrongError: if not.
    """
    contestant = make()
    errors[name] = error(contestant.result(), exact)
    allowed = OURS_AT_MOST if name.startswith("ours") else PEERS_AT_MOST
    if not errors[name] <= allowed * errors["torch"]:
        raise WrongError(
            f"wrong: its relative error is {errors[name]:.2g}, that of torch {errors['torch']:.2g}"
        )
    return contestant


def error(found: Tensor, exact: Tensor) -> float:
    """Relative Frobenius error; infinite where anything is not a number."""
    wide = exact.double()
    difference = torch.linalg.vector_norm(found.double() - wide)
    relative = float(difference / torch.linalg.vector_norm(wide))
    return relative if relative == relative else float("inf")


def sentence(error: BaseException) -> str:
    """The first line of what an exception says, with its kind."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
