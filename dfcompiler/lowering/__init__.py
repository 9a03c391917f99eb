"""Programs lowered to DaCe SDFGs."""

from dfcompiler.lowering.driver import lower
from dfcompiler.lowering.lowered import Argument, KernelRecord, Lowered

__all__ = ["Argument", "KernelRecord", "Lowered", "lower"]
