"""The process of `benchmarks.gpu` that uses the device.

It says what it begins, so that the process that waits for it knows who was at work when it hangs
or ends; see `supervise.py`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.on_gpu.cases import Case
from benchmarks.on_gpu.checks import Check
from benchmarks.on_gpu.generation import Generation
from benchmarks.on_gpu.judge import judge, judge_tokens
from benchmarks.on_gpu.measure import Attempts, measure
from benchmarks.on_gpu.order import CASES

Failures = Mapping[str, str]
HOW: Mapping[type[Case], Callable[[Any, Path, Attempts], dict[str, Any]]] = {
    Case: measure,
    Check: judge,
    Generation: judge_tokens,
}
"""What is done with a case of a kind: its row."""


def measure_cases(
    sender: Connection, names: Sequence[str], failed: Mapping[str, Failures], folder: Path
) -> None:
    """Sends the rows of some cases: the process that `supervise.py` starts.

    Args:
        sender: where messages go.
        names: of the cases.
        failed: by case, who is out already and why.
        folder: where artifacts lie.
    """
    cases = {case.name: case for case in CASES}
    with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
        for name in names:
            begin = partial(_send, sender, "begin", name)
            begin("start")
            attempts = Attempts(
                begin,
                partial(_send, sender, "fail", name),
                torch.cuda.synchronize,
                dict(failed.get(name, {})),
            )
            case = cases[name]
            sender.send(("row", name, HOW[type(case)](case, folder, attempts)))
            gc.collect()
            torch.cuda.empty_cache()


def _send(sender: Connection, kind: str, case: str, *rest: str) -> None:
    sender.send((kind, case, *rest))
