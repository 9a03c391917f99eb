"""Operators of the standard, one file per family; importing this package registers them all."""

from dfcompiler.importers.onnx.operators import (
    activations,
    attention,
    contraction,
    creation,
    einsum,
    elementwise,
    indexing,
    movement,
    normalization,
    quantization,
    reduction,
    shape,
)

__all__ = [
    "activations",
    "attention",
    "contraction",
    "creation",
    "einsum",
    "elementwise",
    "indexing",
    "movement",
    "normalization",
    "quantization",
    "reduction",
    "shape",
]
