"""Import of `torch.export` programs, of `torch.nn` modules and of ATen graphs.

Importing this package imports torch; `dfcompiler.importers` does not import this package.
"""

from dfcompiler.importers.torch_export.graph_module import (
    GraphProgram,
    import_graph_module,
    without_handler,
)
from dfcompiler.importers.torch_export.importer import import_exported, import_module
from dfcompiler.importers.torch_export.saved import load_exported

__all__ = [
    "GraphProgram",
    "import_exported",
    "import_graph_module",
    "import_module",
    "load_exported",
    "without_handler",
]
