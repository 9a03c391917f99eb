"""Compiler processes: several at once, none left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from dfcompiler.errors import ToolchainError

_HIDDEN_VARIABLES = frozenset(
    ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "LD_RUN_PATH")
)
_running: dict[subprocess.Popen[bytes], int] = {}
"""Processes, and the threads that wait for them."""
_stopping: set[int] = set()
"""Threads whose work is no longer wanted."""

T = TypeVar("T")


def environment() -> dict[str, str]:
    """The environment of a compiler: English messages, no folders from the user's settings."""
    kept = {key: value for key, value in os.environ.items() if key not in _HIDDEN_VARIABLES}
    return {**kept, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}


def run_all(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Runs commands at the same time; on a failure or an interrupt none is left running.

    Raises:
        ToolchainError: with the first messages of the command that failed.
    """
    with tempfile.TemporaryDirectory(prefix="dfc-log-") as logs:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number, command in enumerate(commands):
                with (Path(logs) / str(number)).open("wb") as log:
                    process = subprocess.Popen(
                        command,
                        cwd=folder,
                        env=environment(),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                started.append(process)
                _running[process] = threading.get_ident()
            for number, process in enumerate(started):
                if code := process.wait():
                    text = (Path(logs) / str(number)).read_text(errors="replace")
                    raise _failure(commands[number], code, text)
        except OSError as error:
            raise ToolchainError(f"{commands[0][0]} cannot be run: {error.strerror}") from error
        finally:
            _kill(started)
            for process in started:
                _running.pop(process, None)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the driver's children are in its group
            process.wait()


def _failure(command: Sequence[str], code: int, text: str) -> ToolchainError:
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line)] or lines
    return ToolchainError(
        f"{Path(command[0]).name} failed with status {code} on generated code",
        where=tuple(f"> {line}" for line in errors[:5]),
        hint="the disk or the memory may be full; otherwise report it with the model",
    )


@contextlib.contextmanager
def quick_turns() -> Iterator[None]:
    """Threads take turns at the interpreter after 0.2 ms instead of 5.

    One that computes in Python would else hold up those that write, at each of their pieces.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, 2e-4))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextlib.contextmanager
def fewer_collections() -> Iterator[None]:
    """Looks for unreachable cycles after 50,000 new objects instead of 700.

    Importing and rewriting make hundreds of thousands of objects that stay; each look passes many
    of them again.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 50_000) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Stopped(Exception):  # noqa: N818
    """Raised in work that is no longer wanted."""


def go_on() -> None:
    """Called by long work now and then.

    Raises:
        Stopped: if the `Background` that it runs in is being stopped.
    """
    if threading.get_ident() in _stopping:
        raise Stopped


class Background(Generic[T]):
    """Work in another thread, of a `Backgrounds`."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._future: Future[T] = Future()
        self._unwanted = False
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def result(self) -> T:
        """Waits for the end; what the work returned.

        Raises:
            Exception: what the work raised.
        """
        return self._future.result()

    def start(self) -> None:
        """Begins the work; an interrupt in here leaves something that `stop` stops."""
        self._thread.start()

    def stop(self) -> None:
        """Kills the processes of the work, or the work at its next `go_on`, and waits for it."""
        self._unwanted = True
        while self._thread.is_alive():
            ident = self._thread.ident or 0
            _stopping.add(ident)
            for process, thread in tuple(_running.items()):
                if thread == ident and process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
            self._thread.join(0.05)
        _stopping.discard(self._thread.ident or 0)

    def _run(self, work: Callable[[], T]) -> None:
        if self._unwanted:
            return  # stopped before its thread counted as alive
        try:
            self._future.set_result(work())
        except BaseException as error:
            self._future.set_exception(error)


class Backgrounds:
    """Work in other threads; what still runs when the block ends is stopped, and cleans up."""

    def __enter__(self) -> Backgrounds:
        self._all: list[Background[Any]] = []
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._all:
            one.stop()

    def start(self, work: Callable[[], T]) -> Background[T]:
        """Begins `work`; known before it begins, so that no interrupt leaves it running."""
        one = Background(work)
        self._all.append(one)
        one.start()
        return one
