"""Failures as one sentence and an exit code; a bug of the compiler leaves a reproducer."""

from __future__ import annotations

import errno
import json
import platform
import shlex
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dfcompiler.cli.session import Session
from dfcompiler.errors import DfcError, InternalError, UsageError

INTERRUPTED = 130
_SURROUNDINGS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Failures of the file system that are nobody's bug."""
_PACKAGES = ("dfcompiler", "dace", "numpy", "onnx", "torch", "sympy", "ml_dtypes")


def report(error: BaseException, session: Session) -> int:
    """Says what went wrong on stderr and returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        _say(session, "interrupted; nothing was written")
        return INTERRUPTED
    if session.debug:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        error = UsageError(f"{error.filename or 'the output'}: {error.strerror}")
    if not isinstance(error, DfcError):
        error = InternalError(f"{type(error).__name__}: {error}").with_traceback(
            error.__traceback__
        )
    if isinstance(error, InternalError):
        folder = write_reproducer(error, session)
        error.hint = f"this is a bug of the compiler; what reproduces it is in {folder}"
    _say(session, str(error))
    return error.exit_code


def write_reproducer(error: BaseException, session: Session) -> Path:
    """A folder with the command, the program, the versions and the traceback."""
    folder = Path(tempfile.mkdtemp(prefix="dfc-reproducer-"))
    command = shlex.join(["dfc", *session.arguments])
    (folder / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
    lines = traceback.format_exception(error)
    (folder / "traceback.txt").write_text("".join(lines), encoding="utf-8")
    if session.program is not None:
        from dfcompiler.ir import show

        (folder / "program.ir").write_text(show(session.program), encoding="utf-8")
    return folder


def versions() -> dict[str, str]:
    """Versions of Python, the machine and the packages that matter."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _say(session: Session, text: str) -> None:
    """Plain text, never cut or reflowed: it names files and operators."""
    head, _, rest = text.partition(": ")
    if session.log.is_terminal and head.startswith("error["):
        session.log.print(head, style="bold red", end=": ", markup=False)
        session.log.print(rest, markup=False, soft_wrap=True)
        return
    sys.stderr.write(text + "\n")
