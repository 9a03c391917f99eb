"""Reports: the data behind them, the tables, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from dfcompiler.cli.main import main
from dfcompiler.ir import parse
from dfcompiler.lowering import lower
from dfcompiler.report.record import report_data
from dfcompiler.report.tables import kernel_table, pass_table
from dfcompiler.target import parse_target
from passes.pipelines import named
from tests.programs import with_random_weights

PROGRAM = """program p(S <= 8) {
  input @x: f32[S, 8]
  input @ids: i64[S]
  weight @w: f32[8, 8]
  weight @b: f32[8]
  weight @table: f32[16, 8]
  output @y: f32[S, 8]
  state main {
    %0: f32[8, 8] = transpose @w {perm = [1, 0]}
    %1: f32[S, 8] = matmul @x, %0 from "fc"
    %2: f32[S, 8] = add @b, %1
    %3: f32[S, 8] = tanh %2 from "tanh"
    %4: f32[S, 8] = gather @table, @ids {axis = 0}
    @y: f32[S, 8] = mul %3, %4
  }
}"""


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    target = parse_target("cpu:x86-64-v3")
    result = named("default", target).run(with_random_weights(parse(PROGRAM)))
    lowered = lower(result.program, target)
    return report_data(result, lowered.kernels)


def shown(table: object) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_report_is_plain_json_without_times(report: dict[str, object]) -> None:
    text = json.dumps(report)
    assert json.loads(text) == report
    assert report["schema_version"] == 1
    assert "seconds" not in text


def test_every_operator_has_costs_an_implementation_and_its_sources(
    report: dict[str, object],
) -> None:
    rows = report["operators"]
    assert isinstance(rows, list)
    linear = next(row for row in rows if row["kind"] == "fused linear")
    assert linear["operators"] == ["matmul", "add", "tanh", "mul"]
    assert linear["sources"] == ["fc", "tanh"]
    assert linear["flops"] == 2 * 8 * 8 * 8 + 3 * 8 * 8
    assert linear["io_bound_bytes"] <= linear["moved_bytes"]
    assert all(row["implementation"] for row in rows), rows
    gather = next(row for row in rows if row["kind"] == "gather")
    assert gather["io_bound_bytes"] is None
    assert gather["theorem"].startswith("unknown")


def test_tables_show_changes_and_unknown_bounds(report: dict[str, object]) -> None:
    passes = shown(pass_table(report["passes"], report["symbols"]))  # type: ignore[arg-type]
    lines = {line.split()[0]: line for line in passes.splitlines() if line.strip()}
    assert "·" in lines["recover-attention"]
    assert "·" not in lines["fuse-epilogue"]
    assert " ms " not in passes
    assert "metrics at S = 8" in passes
    kernels = shown(kernel_table(report["operators"], report["symbols"]))  # type: ignore[arg-type]
    assert next(line for line in kernels.splitlines() if "fused linear" in line)
    assert "unknown" in next(line for line in kernels.splitlines() if "gather" in line)


def test_the_command_shows_an_artifacts_report(
    report: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert main(["report", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["operators"] == report["operators"]
    assert main(["report", str(tmp_path)]) == 0
    assert "fused linear" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no readable report.json"),
        ("{", "has no readable report.json"),
        ("[]", "has schema version None; expected 1"),
        ('{"schema_version": 9}', "has schema version 9; expected 1"),
        ('{"schema_version": 1}', "lacks passes, operators, symbols"),
    ],
)
def test_a_report_that_cannot_be_read(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 3
    assert sentence in " ".join(capsys.readouterr().err.split())
