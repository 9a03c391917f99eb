"""Programs saved by ``torch.export.save``."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dfcompiler.errors import ModelError

_UNKNOWN_CONTAINER = re.compile(r"Deserializing (transformers\.[\w.]+)\.\w+ in pytree")


def load_exported(path: Path) -> torch.export.ExportedProgram:
    """The program in a ``.pt2`` file.

    A model of `transformers` returns containers that torch knows only once their module is
    imported; if that is what is missing, it is imported.

    Raises:
        ModelError: if the file is something else or damaged.
    """
    with _logged() as messages:
        try:
            return torch.export.load(path)
        except Exception as error:
            failure = error
    found = _UNKNOWN_CONTAINER.search("\n".join([*messages, str(failure)]))
    if found:
        try:
            importlib.import_module(found[1])
            with _logged():
                return torch.export.load(path)
        except ModuleNotFoundError:
            raise ModelError(
                f"{path} returns containers of {found[1]}, which is not installed",
                hint="install it with pip install transformers",
            ) from failure
        except Exception as error:
            failure = error
    lines = [line for text in messages for line in text.strip().splitlines()]
    last = (lines or str(failure).strip().splitlines() or [type(failure).__name__])[-1]
    reason = last.partition(". ")[0]
    raise ModelError(
        f"{path} is no program that torch.export.save wrote, or it is damaged: {reason}"
    ) from failure


@contextmanager
def _logged() -> Iterator[list[str]]:
    """What torch logs instead of raising, kept away from the user's screen."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(self.format(record))

    logger = logging.getLogger("torch.export")
    handlers, propagated = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Keep()], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
            yield messages
    finally:
        logger.handlers, logger.propagate = handlers, propagated
