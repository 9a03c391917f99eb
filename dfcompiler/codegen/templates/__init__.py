"""The files of an artifact's sources that are the same for every model, but for ``@KEYS@``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files


def template(name: str, replacements: Mapping[str, str]) -> str:
    """A file of this folder with every ``@KEY@`` replaced."""
    text = (files(__name__) / name).read_text(encoding="utf-8")
    for key, value in replacements.items():
        text = text.replace(f"@{key}@", value)
    return text
