"""Loads and runs artifacts; needs numpy and the standard library only."""

from dfcompiler.runtime.manifest import Signature, Symbol, Tensor
from dfcompiler.runtime.model import Model, load

__all__ = ["Model", "Signature", "Symbol", "Tensor", "load"]
