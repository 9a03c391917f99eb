"""Compiler processes: several at once, none left behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from dfcompiler.errors import DfcError, ToolchainError

_HIDDEN_VARIABLES = frozenset(
    ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "LD_RUN_PATH")
)
_running: set[subprocess.Popen[bytes]] = set()


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
                _running.add(process)
            for number, process in enumerate(started):
                if code := process.wait():
                    text = (Path(logs) / str(number)).read_text(errors="replace")
                    raise _failure(commands[number], code, text)
        except OSError as error:
            raise ToolchainError(f"{commands[0][0]} cannot be run: {error.strerror}") from error
        finally:
            _kill(started)
            _running.difference_update(started)


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


class Background:
    """Work in another thread that nobody has to wait for; its failure shows in a missing result."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def wait(self) -> None:
        """Waits for the end."""
        self._thread.join()
        atexit.unregister(self._stop)

    def _run(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(DfcError, OSError):
            work()

    def _stop(self) -> None:
        """At the end of the process: kills the compiler, so that the work cleans up and ends."""
        while self._thread.is_alive():
            for process in tuple(_running):
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
            self._thread.join(0.05)
