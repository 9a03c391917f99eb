"""Ahead-of-time compiler for transformer models.

Importing this package imports nothing heavy: the functions below are loaded when first used, so
that an artifact runs where dace, onnx and torch are not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfcompiler.api import compile, import_model, optimize, specialize  # noqa: A004
    from dfcompiler.errors import DfcError
    from dfcompiler.runtime import Model, load

__version__ = "0.1.0"

_MODULES = {
    "DfcError": "dfcompiler.errors",
    "Model": "dfcompiler.runtime",
    "compile": "dfcompiler.api",
    "import_model": "dfcompiler.api",
    "load": "dfcompiler.runtime",
    "optimize": "dfcompiler.api",
    "specialize": "dfcompiler.api",
}

__all__ = ["DfcError", "Model", "compile", "import_model", "load", "optimize", "specialize"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
