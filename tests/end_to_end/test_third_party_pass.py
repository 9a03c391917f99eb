"""A package with a pass of its own: built, installed, run in the pipeline, listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "acme-passes"
version = "1.0"

[project.entry-points."dfcompiler.passes"]
double-negation = "acme_passes:DoubleNegation"

[tool.setuptools]
py-modules = ["acme_passes"]
"""

SOURCE = '''
"""A pass of another package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dfcompiler.ir import Program
from dfcompiler.ir.rewrite import StateRewriter, map_states
from dfcompiler.pipeline import Decline, Pass


@dataclass(frozen=True)
class DoubleNegation(Pass):
    """Lets readers of neg(neg(x)) read x."""

    name: ClassVar[str] = "double-negation"
    claims: ClassVar[tuple[str, ...]] = ("flops <=",)
    after: ClassVar[str] = "eliminate-dead-code"

    def run(self, program: Program, decline: Decline) -> Program:
        def state(one):
            rewriter = StateRewriter(program, one)
            for op in one.ops:
                inner = rewriter.producer(op.inputs[0]) if op.kind == "neg" else None
                if inner is None or inner.kind != "neg":
                    continue
                if not op.result.startswith("%"):
                    decline(op, "its result is a container")
                    continue
                rewriter.forward(op, inner.inputs[0])
            return rewriter.finish()

        return map_states(program, state)
'''

PROGRAM = """program negations() {
  input @x: f32[4]
  output @y: f32[4]
  state main {
    %0: f32[4] = neg @x
    %1: f32[4] = neg %0
    @y: f32[4] = exp %1
  }
}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed, by pip, from its source."""
    source = tmp_path_factory.mktemp("acme")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "acme_passes.py").write_text(SOURCE)
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, str(source)]
    subprocess.run(command, check=True)
    return target


def dfc(installed: Path, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "dfcompiler.cli", *map(str, arguments), "--format", "json"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_is_listed_with_its_package_behind_the_pass_it_follows(installed: Path) -> None:
    found = dfc(installed, "passes")
    row = next(row for row in found["passes"] if row["name"] == "double-negation")
    assert row["package"] == "acme_passes"
    assert row["claims"] == ["flops <="]
    order = found["pipeline"]
    assert order[order.index("double-negation") - 1] == "eliminate-dead-code"


def test_it_runs_when_a_model_is_compiled(installed: Path, tmp_path: Path) -> None:
    model = tmp_path / "negations.ir"
    model.write_text(PROGRAM)
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text('passes = ["double-negation", "eliminate-dead-code"]\n')
    out = tmp_path / "m.dfc"
    found = dfc(installed, "compile", model, "-o", out, "--pipeline", pipeline)
    row = next(row for row in found["passes"] if row["pass"] == "double-negation")
    assert row["changed"]
    assert row["ops"] == 1
    ran = dfc(installed, "compile", model, "-o", out, "--force")
    assert "double-negation" in [row["pass"] for row in ran["passes"]]
