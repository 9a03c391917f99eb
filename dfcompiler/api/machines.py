"""Targets as this machine compiles for them: with the header libraries that are installed."""

from __future__ import annotations

from dataclasses import replace

from dfcompiler.codegen.cutlass import find_cutlass
from dfcompiler.errors import ToolchainError
from dfcompiler.target import CudaTarget, Target, parse_target


def machine_of(target: str | Target) -> Target:
    """A target, or the one of this name with the libraries that are installed.

    Raises:
        UsageError: if no target has this name.
    """
    if not isinstance(target, str):
        return target
    found = parse_target(target)
    if not isinstance(found, CudaTarget):
        return found
    try:
        find_cutlass()
    except ToolchainError:
        return found
    return replace(found, libraries=("cutlass",))
