"""Ahead-of-time compiler for transformer models.

Importing this package imports nothing heavy: the functions below are loaded when first used, so
that an artifact runs where dace, onnx and torch are not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfcompiler.api import compile, import_model, optimize, specialize  # noqa: A004
    from dfcompiler.runtime import Model, load

__version__ = "0.1.0"

__all__ = ["Model", "compile", "import_model", "load", "optimize", "specialize"]

_RUNTIME = ("Model", "load")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "dfcompiler.runtime" if name in _RUNTIME else "dfcompiler.api"
    return getattr(import_module(module), name)
