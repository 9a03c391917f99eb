"""The progress bar of a compilation, on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dfcompiler.api import Stage
from dfcompiler.cli.session import Session

_DOING = {
    "recall": "looking into the cache",
    "import": "importing the model",
    "optimize": "running passes",
    "lower": "lowering to DaCe",
    "build": "compiling and packing weights",
}


@contextmanager
def progress_bar(session: Session) -> Iterator[_Bar]:
    """A bar over the stages of a compilation; it disappears when done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    shown = Progress(
        *columns, console=session.log, transient=True, disable=not session.log.is_terminal
    )
    with shown:
        yield _Bar(session, shown)


class _Bar:
    """Follows the stages; keeps the program for a reproducer."""

    def __init__(self, session: Session, shown: Progress) -> None:
        self.session, self.shown = session, shown
        self.task = shown.add_task("starting", total=1)

    def __call__(self, stage: Stage) -> None:
        if stage.program is not None:
            self.session.program = stage.program
        self.say(_DOING.get(stage.name, stage.name), stage.number - 1, stage.count)

    def say(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Shows what is being done."""
        self.shown.update(self.task, description=what, completed=done, total=total)
