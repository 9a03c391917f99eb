"""Rows from a process that may hang or crash: code that never ran on a device may do either.

Whoever was at work then is out, with a sentence, and a fresh process goes on with the others.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any

STEP_S, OURS_S = 180.0, 30.0
"""How long one contestant may be silent. torch.compile tunes for minutes; an artifact does not, and
one that hangs has to leave time for the others."""
Task = Callable[..., None]
"""Called in the process with a connection, names of cases, and by case who is out and why. It sends
``("begin", case, who)``, ``("fail", case, who, why)`` and ``("row", case, row)``."""
ALL_OF_IT = ("start", "reference")
"""Steps of a case without which nothing of it can be measured."""
NOBODY = ""
"""Between two cases."""


def supervise(
    task: Task, names: Sequence[str], *arguments: object, budget_s: float, step_s: float = STEP_S
) -> Iterator[dict[str, Any]]:
    """A row for each case, in order; those for which no time is left say so.

    Args:
        task: what to run in a process.
        names: of the cases.
        arguments: further ones of `task`.
        budget_s: when everything has to be over.
        step_s: how long the process may be silent.
    """
    deadline = time.monotonic() + budget_s
    left, failed = list(names), {name: dict[str, str]() for name in names}
    while left and time.monotonic() < deadline:
        known = {name: dict(failures) for name, failures in failed.items()}
        case, who = left[0], "start"
        with _Process(task, (tuple(left), known, *arguments)) as process:
            while left:
                silence_s = min(step_s, OURS_S) if who.startswith("ours") else step_s
                message = process.next(min(silence_s, deadline - time.monotonic()))
                if isinstance(message, str):
                    trouble = message
                    break
                kind, case, *rest = message
                if kind == "begin":
                    (who,) = rest
                elif kind == "fail":
                    failed[case][rest[0]] = rest[1]
                else:
                    yield rest[0]
                    left.remove(case)
                    who = NOBODY
        if left and who != NOBODY and time.monotonic() < deadline:
            case = left[0]
            failed[case].setdefault(who, trouble)
            if who in ALL_OF_IT or who in known[case]:
                yield {"case": case, "failed": failed[case]}
                left.remove(case)
    for case in left:
        yield {"case": case, "left_out": f"{budget_s:.0f} s were over", "failed": failed[case]}


class _Process:
    """A process that sends messages; it is ended with the block."""

    def __init__(self, task: Task, arguments: tuple[object, ...]) -> None:
        context = get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=task, args=(sender, *arguments))
        self._process.start()
        sender.close()

    def next(self, wait_s: float) -> tuple[Any, ...] | str:
        """The next message, or a sentence about why there is none."""
        try:
            if not self._receiver.poll(max(wait_s, 0.0)):
                return f"it gave no answer for {wait_s:.0f} s"
            message: tuple[Any, ...] = self._receiver.recv()
        except EOFError:
            self._process.join(10)
            return _ending(self._process.exitcode)
        return message

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._receiver.close()


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"its process ended with status {code}"
    return f"its process ended with {signal.Signals(-code).name}"
