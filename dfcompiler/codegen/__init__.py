"""SDFG → sources → shared library → artifact.

What needs DaCe is loaded when it is first used: a model whose artifact is in the cache does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dfcompiler.codegen.place import check_replaceable, is_artifact
from dfcompiler.codegen.recall import (
    Recalled,
    code_digest,
    keep,
    keep_ahead,
    recall,
    sources_digest,
)
from dfcompiler.codegen.toolchain import find_compiler, find_nvcc, find_toolchain

if TYPE_CHECKING:
    from dfcompiler.codegen.artifact import build
    from dfcompiler.codegen.weights import pack

__all__ = [
    "Recalled",
    "build",
    "check_replaceable",
    "code_digest",
    "find_compiler",
    "find_nvcc",
    "find_toolchain",
    "is_artifact",
    "keep",
    "keep_ahead",
    "pack",
    "recall",
    "sources_digest",
]

_LATE = {"build": "artifact", "pack": "weights"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dfcompiler.codegen.{_LATE[name]}"), name)
