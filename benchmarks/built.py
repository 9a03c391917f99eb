"""The models that benchmarks run: exported once, compiled anew when anything changed."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

BUILD = Path("build/bench")


def exported(model: str) -> Path:
    """The ONNX file of a builder in ``models/``."""
    path = BUILD / f"{model}.onnx"
    if not path.is_file():
        importlib.import_module(f"models.{model}").export_onnx(path)
    return path


def artifact(model: str, target: str = "cpu", precision: str = "f32") -> Path:
    """The artifact of a model; an equal one comes from the compile cache."""
    from dfcompiler import api

    out = BUILD / f"{model}-{target.rpartition(':')[2]}-{precision}.dfc"
    options = api.Options(target=target, precision=precision, force=True)
    return api.compile_artifact(exported(model), out, options).path


def random_inputs(model: str, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Seeded inputs of a model at a batch and a sequence."""
    found: dict[str, np.ndarray] = importlib.import_module(f"models.{model}").random_inputs(*shape)
    return found
