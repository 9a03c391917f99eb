"""Bad input: one clear sentence, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dfcompiler.cli import main

FLOAT = TensorProto.FLOAT


def save(path: Path, nodes: list[onnx.NodeProto], *weights: onnx.TensorProto) -> Path:
    """A model with one input x[N, 4] and one output y of any shape."""
    x = helper.make_tensor_value_info("x", FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], list(weights))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def tensor(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def refused(
    capsys: pytest.CaptureFixture[str], model: Path, code: int, kind: str, *words: str
) -> None:
    """Compiling exits with `code`, one error of `kind`, no traceback, and writes nothing."""
    out = model.parent / "out" / "m.dfc"
    out.parent.mkdir()
    found = main(["compile", str(model), "-o", str(out)])
    captured = capsys.readouterr()
    assert found == code, captured.err
    assert captured.out == ""
    assert captured.err.startswith(f"error[{kind}]: "), captured.err
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    assert list(out.parent.iterdir()) == []


def test_a_file_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "letter.onnx"
    model.write_text("Dear compiler,\nthis is no model.\n" * 40)
    refused(capsys, model, 3, "model", "letter.onnx")


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "empty.onnx"
    model.touch()
    refused(capsys, model, 3, "model", "empty.onnx")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model(kept: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = save(tmp_path / "cut.onnx", nodes, tensor("w", 4, 64))
    data = model.read_bytes()
    model.write_bytes(data[: int(len(data) * kept)])
    refused(capsys, model, 3, "model", "cut.onnx")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no archive", b"text"])
def test_a_saved_torch_program_that_is_none(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "broken.pt2"
    model.write_bytes(content)
    refused(capsys, model, 3, "model", "broken.pt2")


def test_missing_operators_are_all_listed_with_their_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], "first", domain="com.acme"),
        helper.make_node("Relu", ["a"], ["b"], "fine"),
        helper.make_node("Defrobnicate", ["b"], ["c"], "second", domain="com.acme"),
        helper.make_node("Frobnicate", ["c"], ["y"], "third", domain="com.acme"),
    ]
    model = tmp_path / "acme.onnx"
    x = helper.make_tensor_value_info("x", FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", FLOAT, [2, 4])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.acme", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets), model)
    words = ("Frobnicate", "Defrobnicate", "first", "second", "third")
    refused(capsys, model, 4, "unsupported", *words)


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname"])
def test_external_data_outside_the_models_folder(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    weight = TensorProto(name="w", data_type=FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    model = folder / "m.onnx"
    save(model, [helper.make_node("MatMul", ["x", "w"], ["y"])], weight)
    refused(capsys, model, 3, "model", place)


def test_external_data_behind_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    weight = TensorProto(name="w", data_type=FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    model = folder / "m.onnx"
    save(model, [helper.make_node("MatMul", ["x", "w"], ["y"])], weight)
    refused(capsys, model, 3, "model", "w.bin")


def test_contradicting_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    refused(capsys, save(tmp_path / "m.onnx", nodes, tensor("w", 5, 3)), 3, "model", "product")


def test_a_shape_option_that_contradicts_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = save(tmp_path / "m.onnx", nodes)
    out = tmp_path / "m.dfc"
    for shape in ("x=1,5", "x=1", "z=1,4", "M=3"):
        assert main(["compile", str(model), "-o", str(out), "--shape", shape]) == 2
        assert capsys.readouterr().err.startswith("error[usage]: ")
    assert not out.exists()


# ------------------------------------------------------------------------------------- at run time


def good_inputs() -> dict[str, np.ndarray]:
    ids = np.zeros((2, 3), np.int64)
    return {"x": np.ones((2, 3), np.float32), "ids": ids, "attention_mask": ids + 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": np.ones((2, 3), np.float64)}, ("x is float64", "expected float32")),
        ({"ids": np.zeros((2, 3), np.int32)}, ("ids is int32", "expected int64")),
        ({"x": np.ones(3, np.float32)}, ("x has rank 1",)),
        ({"x": np.ones((2, 4), np.float32)}, ("length",)),
        ({name: np.resize(a, (2, 65)) for name, a in good_inputs().items()}, ("length", "64")),
        ({"x": np.ones((0, 3), np.float32)}, ("x",)),
        ({"y": np.ones((2, 3), np.float32)}, ("not expected: y",)),
        ({"x": None}, ("missing x",)),
    ],
)
def test_inputs_that_do_not_fit(
    change: dict[str, np.ndarray | None],
    words: tuple[str, ...],
    small_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = {n: a for n, a in (good_inputs() | change).items() if a is not None}
    np.savez(tmp_path / "in.npz", **arrays)
    outputs = tmp_path / "out.npz"
    arguments = ["--inputs", str(tmp_path / "in.npz"), "--outputs", str(outputs)]
    assert main(["run", str(small_artifact), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error[input]: ")
    for word in words:
        assert word in err
    assert not outputs.exists()


def test_outputs_replace_files_only(
    small_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "in.npz", **good_inputs())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = ["--inputs", str(tmp_path / "in.npz"), "--outputs", str(pipe)]
    assert main(["run", str(small_artifact), *arguments]) == 2
    assert "is no regular file" in capsys.readouterr().err
    assert pipe.is_fifo()


def test_an_input_file_that_is_none(
    small_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.npz"
    assert main(["run", str(small_artifact), "--inputs", str(path)]) == 2
    path.write_text("no arrays")
    assert main(["run", str(small_artifact), "--inputs", str(path)]) == 2
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    assert main(["run", str(small_artifact), "--inputs", str(path)]) == 2
    assert capsys.readouterr().err.count("error[usage]: ") == 3
    np.save(tmp_path / "in.npy", np.zeros(3))
    assert main(["run", str(small_artifact), "--inputs", str(tmp_path / "in.npy")]) == 2
    assert "in.npy holds one array without a name" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- artifacts


@pytest.fixture
def artifact(small_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_artifact, tmp_path / "m.dfc"))


def load_fails(artifact: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    np.savez(artifact.parent / "in.npz", **good_inputs())
    assert main(["run", str(artifact), "--inputs", str(artifact.parent / "in.npz")]) == 3
    err = capsys.readouterr().err
    assert err.startswith("error[model]: ")
    for word in words:
        assert word in err


@pytest.mark.parametrize("name", ["manifest.json", "model.so", "weights.bin"])
def test_an_artifact_with_a_missing_file(
    name: str, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact / name).unlink()
    load_fails(artifact, capsys, name)


@pytest.mark.parametrize("name", ["manifest.json", "model.so", "weights.bin"])
def test_an_artifact_with_a_truncated_file(
    name: str, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = artifact / name
    path.write_bytes(path.read_bytes()[:-7])
    load_fails(artifact, capsys, name)


def test_a_foreign_manifest(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = artifact / "manifest.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "schema_version": 999}))
    load_fails(artifact, capsys, "999")
    path.write_text(json.dumps({"name": "somebody's"}))
    load_fails(artifact, capsys)
    path.write_text("[1, 2, 3]")
    load_fails(artifact, capsys)


def test_an_artifact_for_another_cpu(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = artifact / "manifest.json"
    facts = json.loads(path.read_text())
    facts["target"]["cpu_features"] += ["quantum"]
    path.write_text(json.dumps(facts))
    load_fails(artifact, capsys, "quantum")


def test_verify_compares_all_hashes(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = artifact / "model.h"
    header.write_bytes(b"X" + header.read_bytes()[1:])
    assert main(["verify", str(artifact)]) == 3
    assert "model.h was changed" in capsys.readouterr().err


def test_an_artifact_whose_program_is_damaged(
    artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifact / "ir" / "00-import.ir").write_text("garbage")
    assert main(["inspect", str(artifact), "--after", "import"]) == 3
    err = capsys.readouterr().err
    assert "00-import.ir does not parse: expected program" in err
    assert err.count("error[") == 1


def test_a_folder_that_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    load_fails(folder, capsys, "manifest.json")
    assert main(["inspect", str(folder)]) == 3
    assert main(["verify", str(folder)]) == 3


# --------------------------------------------------------------------------------------- interrupt


def test_an_interrupt_leaves_nothing(small_program: Path, tmp_path: Path) -> None:
    """Interrupted while g++ runs: the cache is empty, so that it runs for seconds."""
    out = tmp_path / "out" / "m.dfc"
    out.parent.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "dfcompiler.cli", "compile", str(small_program), "-o", str(out)],
        env={**os.environ, "DFC_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    unfinished = (tmp_path / "cache").glob
    while not list(unfinished("**/.new*")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)
    assert list(out.parent.iterdir())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "interrupted; nothing was written\n"
    assert list(out.parent.iterdir()) == []
    assert list(unfinished("**/.new*")) == []
