"""The command line: results on stdout, messages on stderr, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table

from dfcompiler.cli import main
from dfcompiler.cli.options import parse_names, parse_shapes
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import UsageError
from tests.conftest import SMALL_PROGRAM


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    assert document["schema_version"] == 1
    assert document["command"] == arguments[0]
    return document


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    ids = np.arange(6).reshape(2, 3)
    np.savez(path, x=np.ones((2, 3), np.float32), ids=ids, attention_mask=np.ones_like(ids))
    return path


def test_compile_writes_an_artifact(
    small_program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.dfc"
    found = run_json(capsys, "compile", small_program, "-o", out, "--shape", "batch=2")
    assert found["artifact"] == str(out)
    assert "recall" in found["seconds"]
    assert found["passes"][0]["pass"] == "import"
    assert sum(found["kernels"].values()) > 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert [s["name"] for s in manifest["signature"]["symbols"]] == ["length"]
    code, text, err = run(capsys, "compile", small_program, "-o", out, "--force")
    assert (code, err) == (0, "")
    assert f"{out}: " in text


def test_run_writes_outputs(
    small_artifact: Path, arrays: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    found = run_json(capsys, "run", small_artifact, "--inputs", arrays, "--outputs", out)
    assert {row["name"]: row["shape"] for row in found["outputs"]} == {
        "sum": [2, 3],
        "shifted": [2, 3],
    }
    with np.load(out) as written:
        np.testing.assert_array_equal(written["shifted"], np.arange(6).reshape(2, 3) + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz", "out.npz"] or len(
        list(tmp_path.iterdir())
    ) == 2


def test_inspect_shows_the_same_program_in_text_and_json(
    small_program: Path, small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = run(capsys, "inspect", small_program)
    assert code == 0
    assert text.strip() == small_program.read_text().strip()
    found = run_json(capsys, "inspect", small_artifact, "--after", "import")
    assert [s["name"] for s in found["symbols"]] == ["batch", "length"]
    assert [op["kind"] for op in found["body"][0]["ops"]] == ["cast", "mul", "gelu", "add"]
    code, _, err = run(capsys, "inspect", small_artifact, "--after", "nothing")
    assert code == 2
    assert "passes that changed it: import" in err


def test_inspect_shows_bounds_of_models_and_artifacts(
    small_program: Path, small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = run(capsys, "inspect", small_program, "--bounds")
    assert code == 0
    assert "registers" in text
    found = run_json(capsys, "inspect", small_artifact, "--bounds", "--shape", "batch=3")
    assert found["symbols"]["batch"] == 3
    assert all(level["ratio"] >= 1 for row in found["bounds"] for level in row["levels"])


def test_passes_lists_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "passes")
    names = [row["name"] for row in found["passes"]]
    assert set(found["pipeline"]) <= set(names)
    assert all(row["summary"] for row in found["passes"])
    assert not any("``" in row["summary"] for row in found["passes"])


def test_brackets_and_colons_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("of [f32]", box=None)
    table.add_row("f32[a] [bold] :warning: [/x]")
    Session().emit(Format.TEXT, {}, "[red] :smile:", table)
    shown = capsys.readouterr().out
    assert "[red] :smile:" in shown
    assert "of [f32]" in shown
    assert "f32[a] [bold] :warning: [/x]" in shown


def test_explain_tells_what_a_pass_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dead.ir"
    path.write_text(
        "program dead() {\n  input @x: f32[4]\n  output @y: f32[4]\n  state main {\n"
        "    %0: f32[4] = exp @x\n    @y: f32[4] = neg @x\n  }\n}\n"
    )
    found = run_json(capsys, "explain", "eliminate-dead-code", path)
    assert found["pass"] == "eliminate-dead-code"
    code, text, _ = run(capsys, "explain", "eliminate-dead-code", path)
    assert code == 0
    assert text.startswith("eliminate-dead-code (pass ")
    code, _, err = run(capsys, "explain", "fuse-everything", path)
    assert code == 2
    assert "the pipeline has no pass fuse-everything" in err


def test_explain_tells_what_stays_wide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.ir"
    path.write_text(
        "program wide() {\n  input @x: f32[4]\n  output @y: f32[4]\n  state main {\n"
        "    %0: f32[] = constant {value = 1000000.0}\n    @y: f32[4] = mul @x, %0\n  }\n}\n"
    )
    options = ("--target", "cuda:sm_90", "--precision", "f16")
    found = run_json(capsys, "explain", "narrow-values", path, *options)
    (declined,) = found["declined"]
    assert declined["reason"] == "%0 holds 1e+06, and f16 ends at 65504"
    code, _, err = run(capsys, "explain", "canonicalize", path, "--precision", "f8")
    assert code == 4
    assert "precision f8 is not supported" in err


def test_verify_compares_with_the_interpreter(
    small_program: Path, small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for subject in (small_program, small_artifact):
        found = run_json(capsys, "verify", subject, "--shape", "x=3,5")
        assert found["ok"]
        assert found["against"] == "interpreter"
        assert found["sizes"] == {"batch": 3, "length": 5}
        assert {row["name"]: row["elements"] for row in found["outputs"]} == {
            "sum": 15,
            "shifted": 15,
        }


def test_verify_exits_with_6_over_tolerance(
    small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "verify", small_artifact, "--tolerance", "0")
    assert code == 6
    assert err.startswith("error[tolerance]: sum differs from interpreter by ")
    assert "OVER" in out


def test_bench_reports_its_share_of_the_ceiling(
    small_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_json(capsys, "bench", small_artifact, "--rounds", 3, "--threads", 1)
    (row,) = found["results"]
    assert row["name"] == "dfcompiler"
    assert found["ceiling_gflops"] > 0
    assert row["share_of_ceiling"] == pytest.approx(row["gflops"] / found["ceiling_gflops"])


def test_doctor_names_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, "doctor")
    assert found["ceilings"]["fma_gflops"] > 0
    findings = {one["name"]: one for one in found["findings"]}
    assert findings.keys() >= {"g++", "OpenMP", "dace", "nvcc", "CUTLASS", "CUDA driver", "GPU"}
    for name in ("nvcc", "CUTLASS", "CUDA driver", "GPU"):
        assert not findings[name]["required"]
        assert findings[name]["found"] or findings[name]["hint"]


def test_a_missing_compiler_exits_with_5_and_says_how_to_get_it(
    small_program: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    code, out, err = run(capsys, "compile", small_program, "-o", tmp_path / "m.dfc")
    assert (code, out) == (5, "")
    assert "apt-get install g++" in err
    assert not (tmp_path / "m.dfc").exists()
    code, _, err = run(capsys, "doctor")
    assert code == 5
    assert err.startswith("error[toolchain]: missing: g++")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["compile"], "Missing argument 'MODEL'"),
        (["compile", "missing.onnx", "-o", "x"], "there is no file missing.onnx"),
        (["passes", "--pipeline", "fast"], "there is no pipeline fast"),
        (["passes", "--target", "tpu"], "target 'tpu' is not known"),
        (["verify", "m.dfc", "--tolerance", "-1"], "--tolerance"),
        (["passes", "--format", "xml"], "'xml' is not one of 'text', 'json'"),
    ],
)
def test_usage_errors_exit_with_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.startswith("error[usage]: ")
    assert "Traceback" not in err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2
    assert "compile" in out + err
    assert "error" not in err
    assert run(capsys, "--help")[0] == 0
    assert run(capsys, "--version")[1].startswith("dfcompiler ")


def test_an_internal_error_leaves_a_reproducer(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("dfcompiler.lowering.lower", broken)
    program = tmp_path_factory.mktemp("new") / "new.ir"
    program.write_text(SMALL_PROGRAM.replace("program small", "program never_compiled_before"))
    out = tmp_path / "m.dfc"
    code, _, err = run(capsys, "compile", program, "-o", out)
    assert code == 1
    first, _, hint = err.strip().partition("\n")
    assert first == "error[internal]: ZeroDivisionError: a bug"
    assert "Traceback" not in err
    folder = Path(hint.rpartition(" ")[2])
    names = {path.name for path in folder.iterdir()}
    assert names == {"command.txt", "versions.json", "traceback.txt", "program.ir"}
    assert "ZeroDivisionError" in (folder / "traceback.txt").read_text()
    assert str(out) in (folder / "command.txt").read_text()
    code, _, err = run(capsys, "compile", program, "-o", out, "--debug")
    assert "Traceback" in err
    assert list(tmp_path.iterdir()) == []


def test_colour_is_left_out_of_pipes_and_with_no_color(small_artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dfcompiler.cli", "verify", str(small_artifact)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stdout + done.stderr


def test_shapes_are_read_from_text() -> None:
    assert parse_shapes(["batch=1", "ids=2,?", "v=7,"]) == {
        "batch": 1,
        "ids": (2, None),
        "v": (7,),
    }
    for text in ("batch", "batch=", "batch=x", "ids=1,-2", "ids=0"):
        with pytest.raises(UsageError):
            parse_shapes([text])


def test_names_of_expansions() -> None:
    texts = ["matmul=wgmma", " attention = native", "matmul=wgmma"]
    assert parse_names(texts, "--expansion") == {"matmul": "wgmma", "attention": "native"}
    assert parse_names(None, "--expansion") == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["matmul"], "--expansion matmul is not of the form KIND=NAME"),
        (["matmul=pure", "matmul=native"], "--expansion gives matmul both pure and native"),
    ],
)
def test_names_that_are_no_expansions(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_names(texts, "--expansion")
