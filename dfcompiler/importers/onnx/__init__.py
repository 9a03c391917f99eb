"""ONNX models become programs."""

from dfcompiler.importers.onnx.importer import import_onnx

__all__ = ["import_onnx"]
