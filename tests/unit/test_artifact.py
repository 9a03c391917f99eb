"""Artifacts: complete, deterministic, rebuilt by their own script, written whole or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import dace
import pytest

from dfcompiler.codegen import Recalled, build, keep, keep_ahead, recall
from dfcompiler.codegen import artifact as writer
from dfcompiler.codegen.dace_sources import dace_configuration, generate_program, saved_graph
from dfcompiler.codegen.store import sha256_of
from dfcompiler.errors import ToolchainError, UsageError
from dfcompiler.pipeline import PipelineResult, Snapshot
from dfcompiler.target import parse_target
from tests.artifacts import build_ledger, ledger, lowered_ledger

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_ledger(tmp_path_factory.mktemp("artifact") / "ledger.dfc")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout(artifact: Path) -> None:
    assert {path.name for path in artifact.iterdir()} == {
        *("manifest.json", "model.so", "model.h", "weights.bin", "src", "ir"),
        *("model.sdfgz", "report.json"),
    }
    own = {path.name for path in (artifact / "src").iterdir() if path.is_file()}
    assert own == {
        *("program.cpp", "prelude.h", "interface.cpp", "sizes.h", "instance.h", "tables.h"),
        *("model.h", "build.sh", "weights.h", "device.h"),
    }


def test_manifest(artifact: Path) -> None:
    facts = json.loads((artifact / "manifest.json").read_text())
    assert facts["schema_version"] == 1
    assert facts["name"] == "ledger"
    assert facts["signature"]["inputs"][0] == {"name": "ids", "dtype": "i64", "shape": ["S"]}
    assert facts["signature"]["symbols"] == [
        {"name": "S", "maximum": 64, "fixed_by": "ids[0]"},
        {"name": "N", "maximum": 8, "fixed_by": None},
    ]
    assert [kept["name"] for kept in facts["persistent"]] == ["total", "calls"]
    assert "S" in facts["arena"]["bytes"]
    assert facts["tools"].keys() >= {"dace", "numpy", "compiler"}
    assert "-fno-math-errno" in facts["numeric_policy"]["flags"]
    weights = {row["name"]: row for row in facts["weights"]}
    assert weights["table"]["offset"] == weights["twin"]["offset"]
    assert weights["panel"]["layout"] == "1/4 0 1%4"
    assert weights["total"]["role"] == "persist"
    files = {name for name in contents(artifact) if name != "manifest.json"}
    assert facts["files"].keys() == files
    for name, row in facts["files"].items():
        assert row == {
            "bytes": (artifact / name).stat().st_size,
            "sha256": sha256_of(artifact / name),
        }


def test_no_paths_of_this_machine(artifact: Path) -> None:
    places = [str(ROOT), str(Path(dace.__file__).parent), str(Path.home()), str(artifact.parent)]
    for name, data in contents(artifact).items():
        plain = gzip.decompress(data) if name.endswith(".sdfgz") else data
        for place in places:
            assert len(place) < 2 or place.encode() not in plain, f"{name} has {place}"


def test_library_needs_the_system_only(artifact: Path) -> None:
    listed = subprocess.run(
        ["readelf", "-d", str(artifact / "model.so")], capture_output=True, text=True, check=True
    ).stdout
    needed = {line.split("[")[1].rstrip("]") for line in listed.splitlines() if "NEEDED" in line}
    known = ("libc.", "libm.", "libstdc++", "libgomp", "libgcc_s", "ld-linux")
    assert all(name.startswith(known) for name in needed), needed
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(artifact / "model.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert all(line.split()[-1].startswith("ledger_") for line in symbols.splitlines())


def test_its_script_rebuilds_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere"
    shutil.copytree(artifact / "src", alone)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([str(alone / "build.sh"), "again.so"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "again.so").read_bytes() == (artifact / "model.so").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "again.so"}


SCRIPT = "import sys; from tests.artifacts import build_ledger; build_ledger(sys.argv[1])"


def test_same_bytes_in_two_processes_at_once(artifact: Path, tmp_path: Path) -> None:
    """Other hash seeds, cache, working folder, paths, DaCe configuration and time zone."""
    (tmp_path / ".dace.conf").write_text("compiler:\n  indentation_spaces: 2\n")
    (tmp_path / "deep").mkdir()
    outs = [tmp_path / "one.dfc", tmp_path / "deep" / "other.dfc"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DFC_CACHE_DIR": str(tmp_path / "cache"),
        "DACE_compiler_codegen_lineinfo": "1",
        "DACE_optimizer_detect_control_flow": "1",
        "TZ": "Asia/Tokyo",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(out)],
            cwd=tmp_path,
            env={**environment, "PYTHONHASHSEED": str(seed)},
        )
        for seed, out in enumerate(outs)
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    assert contents(outs[0]) == contents(outs[1]) == contents(artifact)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".dace.conf", "deep", "cache", "one.dfc"}


def test_configuration_is_put_back() -> None:
    before = dace.Config.get("compiler", "codegen_lineinfo")
    with dace.config.set_temporary("compiler", "codegen_lineinfo", value=not before):
        with dace_configuration():
            assert dace.Config.get("compiler", "codegen_lineinfo") is False
        assert dace.Config.get("compiler", "codegen_lineinfo") is not before


def test_generating_leaves_the_graph_alone() -> None:
    sdfg = lowered_ledger().sdfg
    before = saved_graph(sdfg)
    generate_program(sdfg, "prelude.h", 0)
    assert saved_graph(sdfg) == before


def test_saved_graph_opens_again(artifact: Path) -> None:
    again = dace.SDFG.from_file(str(artifact / "model.sdfgz"))
    assert again.name == "ledger"
    assert again.arrays.keys() == lowered_ledger().sdfg.arrays.keys()


def test_snapshots_report_and_tokenizer_are_kept(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text('{"a": 1}')
    result = PipelineResult(ledger(), (), (Snapshot(0, "import", ledger()),), ())
    out = build(
        result,
        lowered_ledger(),
        parse_target("cpu"),
        tmp_path / "m.dfc",
        report={"b": 1, "a": [2]},
        source_hash="sha256:abc",
        tokenizer=tmp_path / "words.json",
    )
    assert (out / "ir" / "00-import.ir").read_text().startswith("program ledger(S <= 64, N <= 8)")
    assert json.loads((out / "report.json").read_text()) == {"a": [2], "b": 1}
    assert json.loads((out / "tokenizer.json").read_text()) == {"a": 1}
    assert json.loads((out / "manifest.json").read_text())["source_hash"] == "sha256:abc"


# ------------------------------------------------------------------------------------ whole or not


def test_existing_artifact_needs_force(artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.dfc"
    shutil.copytree(artifact, out)
    (out / "mark").touch()
    with pytest.raises(UsageError, match="exists already") as caught:
        build_ledger(out)
    assert "--force" in caught.value.hint
    assert (out / "mark").exists()
    build_ledger(out, force=True)
    assert not (out / "mark").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m.dfc"]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "foreign manifest"])
def test_what_is_no_artifact_is_never_replaced(kind: str, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    match kind:
        case "folder":
            out.mkdir()
            (out / "thesis.txt").write_text("years")
        case "file":
            out.write_text("years")
        case "link":
            out.symlink_to(artifact)
        case "foreign manifest":
            out.mkdir()
            (out / "manifest.json").write_text('{"name": "my web app"}')
    with pytest.raises(UsageError, match="is no artifact"):
        build_ledger(out, force=True)
    assert os.path.lexists(out)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "m.dfc").mkdir()
    assert (build_ledger(tmp_path / "m.dfc") / "manifest.json").exists()


def test_missing_parent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        build_ledger(tmp_path / "no" / "m.dfc")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_file_system_that_refuses(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writer, "write_weights", refuse)
    with pytest.raises(UsageError, match=f"m.dfc cannot be written: {os.strerror(code)}"):
        build_ledger(tmp_path / "m.dfc")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        build_ledger(tmp_path / "m.dfc")


def test_a_long_name(tmp_path: Path) -> None:
    assert build_ledger(tmp_path / ("m" * 251 + ".dfc")).is_dir()
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        build_ledger(tmp_path / ("m" * 300))


@pytest.mark.parametrize(
    "step", ["write_weights", "generate_program", "compile_unit", "link_library", "manifest"]
)
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupt_leaves_what_was_there(
    step: str, existing: bool, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.dfc"
    if existing:
        shutil.copytree(artifact, out)
    before = contents(tmp_path)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_ledger(out, force=existing)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["m.dfc"] if existing else [])


def test_a_failing_rename_puts_the_old_one_back(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "m.dfc"
    shutil.copytree(artifact, out)
    rename: Callable[[Path, Path], Path] = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk is gone"):
        build_ledger(out, force=True)
    assert contents(out) == contents(artifact)


def test_interrupt_of_the_whole_process(tmp_path: Path) -> None:
    """A real signal while the compiler runs."""
    wrapper = tmp_path / "slow-g++"
    slow = f'case "$*" in *" -c "*) touch {tmp_path}/running; sleep 60;; esac'
    wrapper.write_text(f'#!/bin/sh\n{slow}\nexec g++ "$@"\n')
    wrapper.chmod(0o755)
    environment = {
        **os.environ,
        "CXX": str(wrapper),
        "PYTHONPATH": str(ROOT),
        "DFC_CACHE_DIR": str(tmp_path / "cache"),
    }
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(outputs / "m.dfc")],
        env=environment,
        stderr=subprocess.PIPE,
    )
    for _ in range(600):
        if (tmp_path / "running").exists():
            break
        threading.Event().wait(0.05)
    process.send_signal(2)
    assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert list(outputs.iterdir()) == []
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolchainError, match="no C\\+\\+ compiler"):
        build_ledger(tmp_path / "m.dfc")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- recalled


def test_a_kept_artifact_is_recalled(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "m.dfc"
    assert recall("key", out) is None
    keep("key", artifact, b"made by hand")
    assert recall("key", out) == Recalled(out, b"made by hand")
    assert contents(out) == contents(artifact)
    assert recall("other key", tmp_path / "other.dfc") is None
    with pytest.raises(UsageError, match="exists already"):
        recall("key", out)
    (out / "mark").touch()
    recall("key", out, force=True)
    assert contents(out) == contents(artifact)


def test_a_damaged_kept_artifact_is_not_recalled(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "cache"))
    keep("key", artifact)
    (kept,) = (tmp_path / "cache").rglob("weights.bin")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert recall("key", tmp_path / "m.dfc") is None


def test_large_files_are_kept_once(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFC_CACHE_DIR", str(tmp_path / "cache"))
    weights = artifact / "weights.bin"
    monkeypatch.setattr(sys.modules[keep.__module__], "_SHARED_BYTES", weights.stat().st_size)
    keep_ahead(weights, sha256_of(weights))
    keep("key", artifact)
    keep("other key", artifact)
    copies = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    held = [p for p in copies if p.read_bytes() == weights.read_bytes()]
    assert len(held) == 1
    for key in ("key", "other key"):
        assert recall(key, tmp_path / key) is not None
        assert contents(tmp_path / key) == contents(artifact)
    held[0].unlink()
    assert recall("key", tmp_path / "gone.dfc") is None


def test_recalling_needs_no_dace() -> None:
    code = "import sys; from dfcompiler.codegen import recall, code_digest; code_digest(); "
    check = "assert not {'dace', 'sympy', 'onnx', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, check=True)
