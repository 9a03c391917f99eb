"""The Python face: a model in, a loaded artifact out.

import dfcompiler as dfc
model = dfc.compile("model.onnx", out="model.dfc")
outputs = model.run({"input_ids": ids, "attention_mask": mask})

What compiling does is in `compiling`, its stages one by one in `importing`, `specializing` and
`optimizing`; the same model compiled again comes from `artifact_cache`.
"""

from dfcompiler.api.compiling import Compiled, compile, compile_artifact  # noqa: A004
from dfcompiler.api.importing import import_model
from dfcompiler.api.machines import machine_of
from dfcompiler.api.optimizing import optimize, resolve_pipeline
from dfcompiler.api.options import Options
from dfcompiler.api.specializing import given_sizes, specialize
from dfcompiler.api.stages import Stage

__all__ = [
    "Compiled",
    "Options",
    "Stage",
    "compile",
    "compile_artifact",
    "given_sizes",
    "import_model",
    "machine_of",
    "optimize",
    "resolve_pipeline",
    "specialize",
]
