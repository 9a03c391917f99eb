"""ONNX models become programs."""

from dfcompiler.importers.onnx.importer import import_onnx
from dfcompiler.importers.onnx.model_file import external_files

__all__ = ["external_files", "import_onnx"]
