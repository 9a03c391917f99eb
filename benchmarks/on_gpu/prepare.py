"""What `benchmarks.gpu` needs from a machine with the compiler: artifacts and ONNX files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.on_gpu.cases import WEIGHTS, Case

LARGE_BYTES = 1 << 20
"""An ONNX file of a module with more weights than this does not travel without weights."""


def prepare(folder: Path, target: str, cases: Sequence[Case]) -> None:
    """Compiles every artifact, and exports every ONNX file, that is not in `folder` yet."""
    for case in cases:
        compile_artifacts(case, folder, target)
        _export(case, folder)


def prepare_without_weights(folder: Path, target: str, cases: Sequence[Case]) -> None:
    """Like `prepare`, for a folder that travels: `benchmarks.on_gpu.weights` makes what is missing.

    Large ONNX files are left out, and named.
    """
    for case in cases:
        compile_artifacts(case, folder, target)
        for name in case.artifacts.values():
            (folder / name / WEIGHTS).unlink(missing_ok=True)
        if "onnxruntime" not in case.peers or weights_bytes(case) <= LARGE_BYTES:
            _export(case, folder)
        else:
            print(f"{case.onnx}: left out, it is large", file=sys.stderr, flush=True)


def compile_artifacts(case: Case, folder: Path, target: str) -> None:
    """Compiles every artifact of a case that is not in `folder` yet."""
    import dfcompiler as dfc

    default, *others = case.artifacts.values()
    wanted = {default: None} | {
        name: {kind: expansion}
        for name, (kind, expansion) in zip(others, case.expansions, strict=True)
    }
    for name, expansions in wanted.items():
        if _is_wanted(folder / name):
            program = case.program()
            dfc.compile(program, folder / name, target, expansions=expansions, **case.passes)


def weights_bytes(case: Case) -> int:
    """Bytes of parameters and buffers of the module."""
    return sum(value.nbytes for value in case.module().state_dict().values())


def export_onnx(case: Case, path: Path) -> None:
    """The module for ONNX Runtime; its weights lie beside it where they are large."""
    inputs = case.example(0)
    torch.onnx.export(
        case.module(),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["output"],
        dynamo=True,
        verbose=False,
    )


def _export(case: Case, folder: Path) -> None:
    if "onnxruntime" in case.peers and _is_wanted(folder / case.onnx):
        with torch.no_grad():
            export_onnx(case, folder / case.onnx)


def _is_wanted(path: Path) -> bool:
    if not path.exists():
        print(f"{path.name}: in work", file=sys.stderr, flush=True)
    return not path.exists()
