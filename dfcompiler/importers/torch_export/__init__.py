"""Import of `torch.export` programs and of `torch.nn` modules.

Importing this package imports torch; `dfcompiler.importers` does not import this package.
"""

from dfcompiler.importers.torch_export.importer import (
    import_exported,
    import_module,
    load_exported,
)

__all__ = ["import_exported", "import_module", "load_exported"]
