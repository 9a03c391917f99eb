"""Loads and runs artifacts; needs numpy and the standard library only."""

from dfcompiler.runtime.device_array import DeviceArray
from dfcompiler.runtime.device_model import DeviceModel
from dfcompiler.runtime.loading import load, load_later
from dfcompiler.runtime.manifest import Signature, Symbol, Tensor
from dfcompiler.runtime.model import Model

__all__ = [
    "DeviceArray",
    "DeviceModel",
    "Model",
    "Signature",
    "Symbol",
    "Tensor",
    "load",
    "load_later",
]
