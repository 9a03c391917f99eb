"""SDFG → sources → shared library → artifact."""

from dfcompiler.codegen.artifact import build, check_replaceable, is_artifact
from dfcompiler.codegen.build import prepare
from dfcompiler.codegen.toolchain import find_compiler
from dfcompiler.codegen.weights import pack

__all__ = ["build", "check_replaceable", "find_compiler", "is_artifact", "pack", "prepare"]
