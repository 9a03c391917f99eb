"""What `benchmarks.gpu` needs from a machine with the compiler: artifacts and ONNX files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu_cases import Case


def prepare(folder: Path, target: str, cases: Sequence[Case]) -> None:
    """Compiles every artifact, and exports every ONNX file, that is not in `folder` yet."""
    import dfcompiler as dfc

    for case in cases:
        default, *others = case.artifacts.values()
        with torch.no_grad():
            if _is_wanted(folder / default):
                dfc.compile(case.module(), folder / default, target, example_inputs=case.example(0))
            for name, expansion in zip(others, case.expansions, strict=True):
                if _is_wanted(folder / name):
                    compile_with(case, folder / name, target, {"matmul": expansion})
            if "onnxruntime" in case.peers and _is_wanted(folder / case.onnx):
                export_onnx(case, folder / case.onnx)


def compile_with(case: Case, out: Path, target: str, expansions: dict[str, str]) -> None:
    """An artifact with other expansions than `dfc.compile` takes.

    Raises:
        UnsupportedError: if an expansion does not have these element types on this target.
    """
    from dfcompiler.api import import_model
    from dfcompiler.api.optimizing import rewritten
    from dfcompiler.codegen import build
    from dfcompiler.lowering import lower
    from dfcompiler.target import parse_target

    machine = parse_target(target)
    result = rewritten(import_model(case.module(), example_inputs=case.example(0)), machine)
    build(result, lower(result.program, machine, expansions), machine, out)


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


def _is_wanted(path: Path) -> bool:
    if not path.exists():
        print(f"{path.name}: in work", file=sys.stderr, flush=True)
    return not path.exists()
