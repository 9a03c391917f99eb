"""The headers of CUTLASS, which products by it are compiled with: where they are, which version."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfcompiler.errors import ToolchainError

VERSION = "4.2.0"
"""What our kernels are written for; its templates change between releases."""
HINT = (
    f"install its headers with 'pip install --no-deps nvidia-cutlass=={VERSION}.0', or name the "
    f"folder of CUTLASS {VERSION}, the one with include/, with CUTLASS_HOME"
)
_PACKAGE = "cutlass_library/source"
_HEADER = "include/cutlass/version.h"
_MACRO = re.compile(r"#define CUTLASS_(?:MAJOR|MINOR|PATCH) (\d+)")


@dataclass(frozen=True)
class Cutlass:
    """An installation of CUTLASS.

    Attributes:
        home: the folder with ``include``.
        version: such as ``4.2.0``.
    """

    home: Path
    version: str

    def __str__(self) -> str:
        return f"CUTLASS {self.version}"

    @property
    def license(self) -> str:
        """Its terms, which go with programs that hold its code: the comment above its headers."""
        text = (self.home / _HEADER).read_text(encoding="utf-8")
        comment = text[: text.find("*/")].lstrip("/*\n ")
        lines = (line.removeprefix(" *").strip(" *") for line in comment.splitlines())
        return "\n".join(lines).strip() + "\n"


def find_cutlass() -> Cutlass:
    """CUTLASS where ``CUTLASS_HOME`` says, or from the Python package.

    Raises:
        ToolchainError: if it is missing, or another version.
    """
    for home in _homes():
        header = home / _HEADER
        if header.is_file():
            version = ".".join(_MACRO.findall(header.read_text(encoding="utf-8")))
            if version != VERSION:
                raise ToolchainError(
                    f"{home} is CUTLASS {version or 'of an unknown version'}; expected {VERSION}",
                    hint=HINT,
                )
            return Cutlass(home, version)
    named = os.environ.get("CUTLASS_HOME")
    place = (
        f"CUTLASS_HOME={named} has no include/cutlass"
        if named
        else "nvidia-cutlass is not installed"
    )
    raise ToolchainError(f"the headers of CUTLASS are missing: {place}", hint=HINT)


def _homes() -> Iterator[Path]:
    if os.environ.get("CUTLASS_HOME"):
        yield Path(os.environ["CUTLASS_HOME"])
        return
    yield from (
        Path(folder) / _PACKAGE
        for folder in sys.path
        if Path(folder).name in ("site-packages", "dist-packages")
    )
