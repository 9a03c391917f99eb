"""The stages of a compilation: announced when they begin, timed until the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from dfcompiler.ir import Program


@dataclass(frozen=True)
class Stage:
    """A step of the compilation that begins now.

    Attributes:
        name: what is done.
        number: its position, from 1.
        count: how many stages there are.
        program: the program as it is before this stage; None before the import.
    """

    name: str
    number: int
    count: int
    program: Program | None


Progress: TypeAlias = Callable[[Stage], None]


class Stages:
    """Announces stages and keeps their times."""

    NAMES = ("recall", "import", "optimize", "tune", "lower", "build")

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.starts: dict[str, float] = {}

    def __call__(self, name: str, program: Program | None = None) -> None:
        """The stage `name` begins; `program` is what it starts from."""
        self.starts[name] = time.perf_counter()
        if self.progress:
            number = self.NAMES.index(name) + 1
            self.progress(Stage(name, number, len(self.NAMES), program))

    def finished(self) -> dict[str, float]:
        """Seconds of every stage; the last one ends now."""
        ends = [*list(self.starts.values())[1:], time.perf_counter()]
        pairs = zip(self.starts.items(), ends, strict=True)
        return {name: end - start for (name, start), end in pairs}
