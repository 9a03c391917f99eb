"""Times launches in a process of its own, because a kernel that fails may spoil its process.

``python timing_worker.py LIBRARY`` reads one product a line and answers with
lines of JSON::

    → {"type": 1, "extents": [batch, M, N, K], "along_depth": 0, "copies": 9, "launches": [0, 4]}
    ← {"try": 0} {"try": 4} {"seconds": [1.3e-05, 1.1e-05]}

``try`` comes before a launch, so that the one that ends the process is known. A launch that gives
other numbers than the first one answers ``{"try": 4, "failed": "…"}`` and is left out; one that
fails is the last that this process tries, because it may have spoiled the device's context.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

ROUNDS = 9
RUN_S = 2e-3
"""Seconds of the launches of one candidate in one round."""
MOST_RUNS = 1000

Say: TypeAlias = Callable[[Mapping[str, Any]], None]


class Timer:
    """The functions of a timing library (`gpu_timing`)."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.dfc_timing_failure.restype = ctypes.c_char_p

    def measure(self, job: Mapping[str, Any], say: Say, rounds: int = ROUNDS) -> None:
        """Says the median seconds of each launch of a product, None for those left out.

        Raises:
            SystemExit: if a launch failed.
        """
        batch, m, n, _ = job["extents"]
        code = self._call(
            "prepare", job["type"], *job["extents"], job["along_depth"], job["copies"]
        )
        if code:
            say({"failed": f"its operands cannot be made: {self._sentence(code)}"})
            sys.exit(1)
        kept: dict[int, int] = {}
        expected: np.ndarray | None = None
        for number in job["launches"]:
            say({"try": number})
            _, failed = self.run(number, 0)
            if failed:
                say({"try": number, "failed": failed})
                sys.exit(1)
            found = self.result(job["type"], batch * m * n)
            expected = found if expected is None else expected
            if wrong := _difference(found, expected):
                say({"try": number, "failed": wrong})
                continue
            seconds, _ = self.run(number, 1)  # the first one loaded the kernel
            kept[number] = min(MOST_RUNS, max(1, int(RUN_S / max(seconds, 1e-7))))
        times: dict[int, list[float]] = {number: [] for number in kept}
        for _ in range(rounds):
            for number, runs in kept.items():
                times[number].append(self.run(number, runs)[0])
        medians = {number: float(np.median(some)) for number, some in times.items()}
        say({"seconds": [medians.get(number) for number in job["launches"]]})

    def run(self, number: int, runs: int) -> tuple[float, str]:
        """Seconds of a launch, and why it failed."""
        seconds = ctypes.c_double()
        code = self._call("run", number, runs, ctypes.byref(seconds))
        return seconds.value, self._sentence(code) if code else ""

    def result(self, kind: int, count: int) -> np.ndarray:
        """The elements that the last launch that was looked at has written, as float64."""
        raw = np.empty(count, (np.float32, np.uint16, np.float16)[kind])
        self._call("result", ctypes.c_void_p(raw.ctypes.data))
        if kind == 1:  # bf16 is the upper half of a float
            return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return raw.astype(np.float64)

    def _call(self, name: str, *arguments: Any) -> int:
        values = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
        return int(self.library[f"dfc_timing_{name}"](*values))

    def _sentence(self, code: int) -> str:
        return str(self.library.dfc_timing_failure(code).decode("utf-8", "replace"))


def _difference(found: np.ndarray, expected: np.ndarray) -> str:
    """How a result differs by more than the order of sums explains; empty if it does not.

    Both are rounded to at least 8 bits, and sums of random numbers cancel.
    """
    allowed = 2**-6 * np.abs(expected) + 2**-6 * np.sqrt(np.mean(expected**2))
    wrong = ~(np.abs(found - expected) <= allowed)
    if not wrong.any():
        return ""
    at = int(np.argmax(wrong))
    return f"it gives other numbers: {found[at]:g} for {expected[at]:g} at element {at}"


def main(arguments: Sequence[str]) -> None:
    """Answers until its input ends."""
    timer = Timer(arguments[0])

    def say(what: Mapping[str, Any]) -> None:
        print(json.dumps(what), flush=True)

    for line in sys.stdin:
        timer.measure(json.loads(line), say)


if __name__ == "__main__":
    main(sys.argv[1:])
