"""What one invocation of the command line carries along."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from dfcompiler.ir import Program

SCHEMA_VERSION = 1
_FILE_COLUMNS = 200
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
"""Texts are shown as they are: names and shapes hold brackets and colons."""


class Format(str, Enum):
    """How results are written to stdout."""

    TEXT = "text"
    JSON = "json"


@dataclass
class Session:
    """The state of one invocation.

    Attributes:
        arguments: the command line, without the program's name.
        debug: show tracebacks.
        program: the program that is being worked on; a reproducer keeps it.
        results: where results go: stdout.
        log: where progress and messages go: stderr.
    """

    arguments: tuple[str, ...] = ()
    debug: bool = False
    program: Program | None = None
    results: Console = field(default_factory=lambda: _results_console())
    log: Console = field(default_factory=lambda: Console(stderr=True, **_PLAIN))

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Says on a terminal what takes its time."""
        if not self.log.is_terminal:
            yield
            return
        with self.log.status(Text(text)):
            yield

    def emit(self, form: Format, data: dict[str, Any], *text: RenderableType) -> None:
        """Writes a result: `data` with its schema version as JSON, or `text`."""
        if form is Format.JSON:
            document = {"schema_version": SCHEMA_VERSION, **data}
            sys.stdout.write(json.dumps(document, indent=2, default=_plain) + "\n")
            return
        for part in text:
            self.results.print(part)


def _results_console() -> Console:
    """As wide as the terminal; wide enough for every table in a file or a pipe."""
    width = None if sys.stdout.isatty() else _FILE_COLUMNS
    return Console(soft_wrap=True, width=width, **_PLAIN)


def _plain(value: Any) -> Any:
    """Numpy numbers, paths and dimensions in JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
