"""A process that runs one engine, and the handle that its parent holds.

Engines keep their threads spinning for a while after a call, and each brings a pool of its own: two
of them in one process take each other's cores. In processes of their own, waiting in a read that
costs nothing, they do not meet. Times are taken inside the process, around the call only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from statistics import median
from types import TracebackType
from typing import Any

import numpy as np

from dfcompiler.errors import DfcError, ModelError
from dfcompiler.reference.ceilings import Rates, measure_rates
from dfcompiler.reference.engines import Engine, Entry, load_engine
from dfcompiler.target import parse_cpu

SHORT_S = 0.1
"""A call below this is preceded by one that does not count, which wakes the engine's threads."""

CLOSING_S = 5.0


@dataclass
class _Served:
    """The state of a worker's own side."""

    entry: Entry
    engine: Engine
    call: Any = None
    last_s: float = 0.0

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Binds the inputs of all later turns, and runs them once."""
        self.call = self.engine.bind(inputs)
        self.engine.before()
        found = {name: np.array(x) for name, x in self.engine.read(self.call()).items()}
        self.last_s = self._once()
        return found

    def turn(self, seconds: float, most: int) -> float:
        """The median of some calls in a row, as many as fit into `seconds`, at least one."""
        if self.last_s < SHORT_S:
            self._once()
        stop = time.perf_counter() + seconds
        samples = [self._once()]
        while len(samples) < most and time.perf_counter() + samples[-1] < stop:
            samples.append(self._once())
        self.last_s = median(samples)
        return self.last_s

    def rates(self, target: str, seconds: float) -> Rates:
        """The ceilings of this machine, measured here."""
        return measure_rates(parse_cpu(target), self.entry.threads, seconds)

    def memory(self) -> dict[str, int]:
        """Bytes of this process: resident ones, and the most there ever were."""
        with open("/proc/self/status", encoding="ascii") as status:
            lines = dict(line.split(":", 1) for line in status)
        return {key: int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM", "RssAnon")}

    def _once(self) -> float:
        self.engine.before()
        started = time.perf_counter()
        self.call()
        return time.perf_counter() - started


class Worker:
    """An engine in a process of its own; a context manager, which ends the process.

    The engine loads its model while the parent goes on; the first answer waits for it.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self._channel, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        threads = str(entry.threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads),
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dfcompiler.reference.worker", str(theirs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._loaded = False
        self._channel.send(entry)

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for inputs, which later turns take as well.

        Raises:
            DfcError: from the engine: not installed, or not able to run the model.
        """
        found: dict[str, np.ndarray] = self._ask(("outputs", dict(inputs)))
        return found

    def turn(self, seconds: float = 0.03, most: int = 15) -> float:
        """Seconds of a call, the median of those in one turn."""
        return float(self._ask(("turn", seconds, most)))

    def rates(self, target: str, seconds: float = 0.01) -> Rates:
        """The machine's ceilings, measured in the engine's process."""
        found: Rates = self._ask(("rates", target, seconds))
        return found

    def memory(self) -> dict[str, int]:
        """``VmRSS``, ``VmHWM`` and ``RssAnon`` of the process, in bytes."""
        found: dict[str, int] = self._ask(("memory",))
        return found

    def close(self) -> None:
        """Ends the process."""
        self._channel.close()
        try:
            self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.close()

    def _ask(self, request: Any) -> Any:
        try:
            self._channel.send(request)
            answer = None if self._loaded else self._channel.recv()
            if not isinstance(answer, DfcError):
                self._loaded = True
                answer = self._channel.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
            raise ModelError(
                f"{self.entry.engine} ended with {code} while it ran {self.entry.model}",
                tuple(lines),
            ) from None
        if isinstance(answer, DfcError):
            raise answer
        return answer


def _serve(channel: Connection) -> None:
    """Loads the engine of the first message and answers the others until there are no more."""
    entry: Entry = channel.recv()
    served: _Served | None = None
    try:
        served = _Served(entry, load_engine(entry))
        channel.send(None)
    except DfcError as error:
        channel.send(error)
    while served is not None:
        try:
            name, *arguments = channel.recv()
        except EOFError:
            return
        try:
            channel.send(getattr(served, name)(*arguments))
        except DfcError as error:
            channel.send(error)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            channel.send(ModelError(f"{entry.engine} fails: {first}"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    # Under the name that objects of the parent are pickled with.
    from dfcompiler.reference import worker

    worker._serve(Connection(int(sys.argv[1])))
