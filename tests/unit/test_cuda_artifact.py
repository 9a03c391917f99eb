"""Artifacts for a GPU: compiled, linked and refused on a machine that needs to have none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.codegen import find_nvcc, library
from dfcompiler.errors import DeviceError, ToolchainError, UsageError
from dfcompiler.runtime import load, load_later
from dfcompiler.target import parse_target
from tests.cuda_artifacts import build_squares

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
REFUSALS = ("there is no CUDA driver", "the CUDA driver is too old", "the CUDA driver finds no GPU")


def has_nvcc() -> bool:
    try:
        find_nvcc()
    except ToolchainError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_squares(tmp_path_factory.mktemp("artifact") / "squares.dfc")


def test_manifest_says_what_it_runs_on(artifact: Path) -> None:
    facts = json.loads((artifact / "manifest.json").read_text())
    target = facts["target"]
    major = find_nvcc().version.partition(".")[0]
    assert target["name"] == "cuda:sm_90"
    assert target["cpu_features"] == []
    assert target["cuda"] == {"architecture": "sm_90a", "driver": f"{major}.0"}
    assert facts["tools"]["compiler"].startswith("nvcc ")
    assert "--ftz=false" in facts["numeric_policy"]["flags"]


def test_library_needs_the_system_only(artifact: Path) -> None:
    listed = subprocess.run(
        ["readelf", "-d", artifact / "model.so"], capture_output=True, text=True, check=True
    ).stdout
    needed = {line.split("[")[1].rstrip("]") for line in listed.splitlines() if "NEEDED" in line}
    known = ("libc.", "libm.", "libstdc++", "libgcc_s", "libdl", "librt", "libpthread", "ld-linux")
    assert all(name.startswith(known) for name in needed), needed
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", artifact / "model.so"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(line.split()[-1].startswith("squares_") for line in symbols.splitlines())


def test_its_script_rebuilds_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact / "src", tmp_path / "elsewhere")
    environment = {**os.environ, "NVCC": find_nvcc().command[0]}
    script = tmp_path / "elsewhere" / "build.sh"
    subprocess.run([script, "again.so"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "again.so").read_bytes() == (artifact / "model.so").read_bytes()


def test_same_bytes_from_another_place_and_cache(artifact: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from tests.cuda_artifacts import build_squares\n"
        "build_squares(pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DFC_CACHE_DIR": str(tmp_path / "cache")}
    other = tmp_path / "other.dfc"
    subprocess.run([sys.executable, "-c", code, other], cwd=tmp_path, env=environment, check=True)
    for path in sorted(artifact.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (other / path.relative_to(artifact)).read_bytes(), path.name


def test_no_paths_of_this_machine(artifact: Path) -> None:
    for path in artifact.rglob("*"):
        if path.is_file() and path.suffix != ".sdfgz":
            assert str(ROOT).encode() not in path.read_bytes(), path


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c99"), ("g++", "c++20")])
def test_header_is_plain_c(artifact: Path, tmp_path: Path, compiler: str, standard: str) -> None:
    suffix = "c" if compiler == "gcc" else "cpp"
    source = tmp_path / f"main.{suffix}"
    source.write_text(
        '#include "model.h"\n#include <stdio.h>\n'
        "int main(void) {\n  squares_model *model = squares_create(0);\n"
        '  printf("%d %s", squares_last_status(), squares_last_error());\n'
        "  squares_destroy(model);\n  return model ? 1 : 0;\n}\n"
    )
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{artifact}"]
    command = [compiler, *flags, source, artifact / "model.so", f"-Wl,-rpath,{artifact}"]
    subprocess.run([*map(str, command), "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [tmp_path / "main"], capture_output=True, text=True, env={**os.environ, **NO_GPU}
    )
    assert done.returncode == 0
    assert done.stdout.startswith(tuple(f"10 {text}" for text in REFUSALS)), done.stdout
    assert not done.stderr


def test_a_machine_without_a_gpu_is_one_sentence(artifact: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 4), np.float32))
    command = [sys.executable, "-m", "dfcompiler.cli", "run", artifact, "--inputs", "x.npz"]
    environment = {**os.environ, **NO_GPU, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 8
    assert done.stderr.startswith(tuple(f"error[device]: {text}" for text in REFUSALS)), done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_model_that_was_compiled_here_says_so_when_it_runs(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = load_later(artifact)
    assert str(model.signature) == "(x: f32[N, 4]) -> (y: f32[N, 4]) for N <= 4096"
    with pytest.raises(DeviceError):
        model.run({"x": np.ones((2, 4), np.float32)})
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model.run({"x": np.ones((2, 4), np.float32)})


def test_threads_are_of_a_cpu(artifact: Path) -> None:
    with pytest.raises(UsageError, match="there are no threads to set"):
        load(artifact, threads=2)


def test_a_kernel_that_does_not_compile(tmp_path: Path) -> None:
    unit = library.Unit("broken", {"broken.cu": "__global__ void f() { nothing(); }\n"}, ".cu")
    with pytest.raises(ToolchainError, match="nvcc failed with status") as caught:
        library.compile_unit(unit, parse_target("cuda:sm_90"))
    assert "nothing" in caught.value.where[0]
