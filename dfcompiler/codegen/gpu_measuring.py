"""Measuring candidates on a device: a worker that is started again when a launch ends it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Protocol, TypeAlias

from dfcompiler.codegen.gpu_candidates import Candidate, Measurable
from dfcompiler.codegen.gpu_timing import ELEMENTS, build_timing, launches_of
from dfcompiler.codegen.process import environment
from dfcompiler.target import CudaTarget

TRY_S = 60.0
"""Seconds after which a worker that says nothing is ended."""
MOST_COPIES = 64
_WORKER = Path(__file__).with_name("timing_worker.py")

Measured: TypeAlias = Mapping[Candidate, "float | str"]
"""Seconds of each candidate, or why it has none."""


class Timer(Protocol):
    """What measures: candidates of products in, seconds out."""

    def __call__(
        self, choices: Mapping[Measurable, Sequence[Candidate]]
    ) -> Mapping[Measurable, Measured]:
        """Seconds of every candidate of every product, or why it has none."""


class DeviceTimer:
    """Measures on the first GPU of this process."""

    def __init__(self, target: CudaTarget) -> None:
        self.target = target

    def __call__(
        self, choices: Mapping[Measurable, Sequence[Candidate]]
    ) -> Mapping[Measurable, Measured]:
        """See `Timer`.

        Raises:
            ToolchainError: if what times does not compile.
        """
        calls = launches_of(choices)
        built = build_timing(list(dict.fromkeys(calls.values())), self.target)
        found: dict[Measurable, dict[Candidate, float | str]] = {}
        for wanted, some in choices.items():
            numbers, result = {}, found.setdefault(wanted, {})
            for one in some:
                call = calls[wanted, one]
                if call in built.launches:
                    numbers[built.launches.index(call)] = one
                else:
                    result[one] = built.failures[call]
            for number, seconds in measured(built.path, wanted, list(numbers), self.target).items():
                result[numbers[number]] = seconds
        return found


def measured(
    library: Path, wanted: Measurable, launches: Sequence[int], target: CudaTarget
) -> dict[int, float | str]:
    """Seconds of each launch of a product, or why it has none."""
    left, found = list(launches), dict[int, float | str]()
    while left:
        tried, job = left[0], json.dumps(_job(wanted, left, target))
        ended = "the process that measures ended without a word"
        for line in _answers(library, job):
            if "seconds" in line:
                rows = zip(left, line["seconds"], strict=True)
                return found | {number: seconds for number, seconds in rows if seconds is not None}
            tried, ended = line.get("try", tried), line.get("ended", ended)
            if "failed" in line:
                found[tried] = str(line["failed"])
        found.setdefault(tried, ended)
        left = [number for number in left if number not in found]
    return found


def _job(wanted: Measurable, launches: Sequence[int], target: CudaTarget) -> dict[str, Any]:
    product = wanted.product
    operands = (
        product.rows * product.depth
        + product.depth * product.columns
        + 2 * product.rows * product.columns
    )
    one = product.batch * operands * product.element_bytes
    return {
        "type": ELEMENTS.index(wanted.dtype),
        "extents": [product.batch, product.rows, product.columns, product.depth],
        "along_depth": int(product.along_depth),
        "copies": min(MOST_COPIES, max(2, ceil(2 * target.l2_bytes / one))),
        "launches": list(launches),
    }


def _answers(library: Path, job: str) -> Iterator[dict[str, Any]]:
    """The lines that a worker answers with, and how it ended; a silent one is ended."""
    # By its file: importing the compiler would take longer than most measurements.
    command = [sys.executable, "-I", str(_WORKER), str(library)]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        ) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(job + "\n")
        worker.stdin.close()
        try:
            yield from _timed_lines(worker.stdout, worker)
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            yield {"ended": f"the process that measures ended: {last or worker.wait()}"}
        finally:
            worker.kill()


def _timed_lines(lines: IO[str], worker: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    while True:
        alarm = threading.Timer(TRY_S, worker.kill)
        alarm.start()
        try:
            line = lines.readline()
        finally:
            alarm.cancel()
        if not line:
            return
        yield json.loads(line)
