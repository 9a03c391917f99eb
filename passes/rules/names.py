"""Names that nothing has."""

from __future__ import annotations

from collections.abc import Container


def unused(name: str, taken: Container[str]) -> str:
    """`name`, with underscores behind it where it is taken."""
    while name in taken:
        name += "_"
    return name
