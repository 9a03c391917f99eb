"""Thread counts that do not fit the machine, and sizes that were not compiled for: tiny BERT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dfcompiler as dfc
from dfcompiler.errors import InputError, UsageError
from models import bert
from models.onnx_export import export_tiny
from tests.tolerances import assert_close

RUN = """
import sys, numpy as np, dfcompiler.runtime as runtime
model = runtime.load(sys.argv[1])
np.savez(sys.argv[3], **model.run(dict(np.load(sys.argv[2]))))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny("bert", tmp_path_factory.mktemp("threads") / "bert.onnx")


@pytest.fixture(scope="module")
def artifact(exported: Path) -> Path:
    return dfc.compile(exported, out=exported.with_suffix(".dfc")).path


def inputs(batch: int, sequence: int) -> dict[str, np.ndarray]:
    tensors: dict[str, Any] = bert.example_inputs(batch, sequence)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("shape", [(1, 1), (3, 40)])
@pytest.mark.parametrize("threads", [3, 64, 500])
def test_more_threads_than_cores_and_than_work(
    threads: int, shape: tuple[int, int], artifact: Path
) -> None:
    one, many = (dfc.load(artifact, threads=count) for count in (1, threads))
    for _ in range(2):
        (found,), (expected,) = (m.run(inputs(*shape)).values() for m in (many, one))
        assert_close(found, expected)


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "64"},
        {"OMP_NUM_THREADS": "64", "OMP_WAIT_POLICY": "passive"},
        {"OMP_NUM_THREADS": "64", "OMP_THREAD_LIMIT": "1"},
        {"OMP_NUM_THREADS": "64", "OMP_THREAD_LIMIT": "3"},
        {"OMP_NUM_THREADS": "4", "OMP_DYNAMIC": "true"},
        {"OMP_NUM_THREADS": "no number"},
    ],
    ids=lambda environment: ",".join(f"{k}={v}" for k, v in environment.items()),
)
def test_what_openmp_is_told(environment: dict[str, str], artifact: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **inputs(3, 40))
    files = [str(artifact), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(
        [sys.executable, "-c", RUN, *files], env={**os.environ, **environment}, check=True
    )
    expected = dfc.load(artifact, threads=1).run(inputs(3, 40))
    found = np.load(tmp_path / "out.npz")
    for name, array in expected.items():
        assert_close(found[name], array)


@pytest.mark.parametrize("threads", [-1, 1 << 20])
def test_thread_counts_that_are_none(threads: int, artifact: Path) -> None:
    with pytest.raises(UsageError, match="expected 0 to"):
        dfc.load(artifact, threads=threads)


def test_sizes_that_were_not_compiled_for(exported: Path, tmp_path: Path) -> None:
    """A fixed size and a limit hold for every call; after an error the model goes on."""
    model = dfc.compile(
        exported, out=tmp_path / "m.dfc", shapes={"batch": 2}, limits={"sequence": 16}
    )
    with pytest.raises(InputError, match="axis 0 of input_ids has 3 elements; expected 2"):
        model.run(inputs(3, 7))
    with pytest.raises(InputError, match="sequence = 17; the model takes 16 at most"):
        model.run(inputs(2, 17))
    (found,) = model.run(inputs(2, 16)).values()
    assert np.isfinite(found).all()
