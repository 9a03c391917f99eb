"""Makes the weights of artifacts again on a machine that they travelled to without.

A module has the same weights in every process, and import and passes need neither DaCe nor ONNX
nor SciPy. Needed are torch, numpy, ml_dtypes, networkx, sympy, and this package, installed because
its passes are entry points: ``pip install --no-deps --no-build-isolation .`` with setuptools alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.on_gpu.cases import WEIGHTS, Case
from benchmarks.on_gpu.measure import sentence

if TYPE_CHECKING:
    from dfcompiler.codegen.weights import StoredTensor, WeightsTable

PACKAGES = ("ml_dtypes", "networkx", "numpy", "sympy", "torch")


class WeightsError(Exception):
    """Weights that are not those of an artifact; the message says what differs."""


def check_installed() -> None:
    """Asks for everything that is needed before any work.

    Raises:
        SystemExit: naming what is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not entry_points(group="dfcompiler.passes"):
        missing.append("dfcompiler (pip install --no-deps --no-build-isolation .)")
    if missing:
        raise SystemExit(f"benchmarks.gpu: 'weights' needs {', '.join(missing)}; not installed")


def make_weights(folder: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Writes every file of weights that is missing below `folder`.

    Returns:
        By the name of the case why it has none still.
    """
    failures: dict[str, str] = {}
    for case in cases:
        artifacts = without_weights(case, folder)
        if not artifacts:
            continue
        print(f"{case.name}: weights in work", file=sys.stderr, flush=True)
        try:
            write_shared(case, artifacts)
        except Exception as error:  # whatever it is, the others go on
            failures[case.name] = sentence(error)
    return failures


def without_weights(case: Case, folder: Path) -> list[Path]:
    """The artifacts of a case that have no weights."""
    artifacts = [folder / name for name in case.artifacts.values()]
    return [path for path in artifacts if path.is_dir() and not (path / WEIGHTS).exists()]


def write_shared(case: Case, artifacts: Sequence[Path]) -> None:
    """Writes the weights of a case once, as one file in all of its artifacts.

    Raises:
        WeightsError: if the table or a byte is not as a manifest says; nothing is written then.
    """
    from dfcompiler.api.optimizing import rewritten
    from dfcompiler.codegen.weights import weights_table, write_weights
    from dfcompiler.target import parse_target

    facts = {path: json.loads((path / "manifest.json").read_text("utf-8")) for path in artifacts}
    target = parse_target(facts[artifacts[0]]["target"]["name"])
    program = rewritten(case.program(), target, **case.passes).program
    table = weights_table(program)
    for path in artifacts:
        _check_table(path, table, facts[path]["weights"])
    part = artifacts[0] / f"{WEIGHTS}.part"
    try:
        found = write_weights(part, program).sha256
        for path in artifacts:
            expected = facts[path]["files"][WEIGHTS]["sha256"]
            if found != expected:
                raise WeightsError(
                    f"the weights of {path.name} have the sha256 {found}; its manifest expects "
                    f"{expected}"
                )
        for path in artifacts:
            os.link(part, path / WEIGHTS)
    finally:
        part.unlink(missing_ok=True)


def _check_table(
    artifact: Path, table: WeightsTable, expected: Sequence[Mapping[str, Any]]
) -> None:
    """Compares before the long work of writing.

    Raises:
        WeightsError: naming the first tensor that differs.
    """
    if len(table.tensors) != len(expected):
        raise WeightsError(
            f"there are {len(table.tensors)} weights; the manifest of {artifact.name} expects "
            f"{len(expected)}"
        )
    for tensor, row in zip(table.tensors, expected, strict=True):
        if _row(tensor) != row:
            raise WeightsError(
                f"a weight is {_row(tensor)}; the manifest of {artifact.name} expects {dict(row)}"
            )


def _row(tensor: StoredTensor) -> dict[str, Any]:
    """A tensor as manifests show it."""
    return {
        "name": tensor.name,
        "role": tensor.role,
        "dtype": tensor.type.dtype.value,
        "shape": list(tensor.type.shape),
        "layout": str(tensor.type.layout),
        "offset": tensor.offset,
        "bytes": tensor.bytes,
    }
