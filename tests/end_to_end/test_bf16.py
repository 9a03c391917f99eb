"""``--precision bf16`` from end to end: error, bytes, and what an artifact asks of a machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dfcompiler as dfc
from dfcompiler.api import Options, compile_artifact
from dfcompiler.cli import main
from dfcompiler.errors import ModelError, UsageError
from dfcompiler.ir import parse
from dfcompiler.reference.runners import torch_module
from dfcompiler.runtime import manifest as runtime_manifest
from dfcompiler.target import CPU_TARGETS, host_features, parse_cpu, parse_target
from models import bert
from models.onnx_export import export_tiny
from tests.programs import with_random_weights

EPSILON = 2.0**-8
"""Twice the greatest relative error of rounding to bfloat16."""
RUNNABLE = [
    name
    for name in CPU_TARGETS
    if host_features().issuperset(parse_cpu(name).extended().cpu_features)
]
PLAIN = """program p(S) {
  input @x: f32[S, 4]
  output @y: f32[S, 4]
  state main {
    %s
  }
}"""


@pytest.mark.parametrize("target", RUNNABLE)
def test_the_error_is_that_of_rounding(target: str) -> None:
    """Rounding errors of the products in a row add up like independent ones: layers of a tiny BERT.

    Every layer has four products, each with two rounded operands; a layer norm behind each pair
    keeps values of order 1, so that the relative error of one product becomes an absolute one.
    """
    module = bert.build()
    model = dfc.compile(
        module,
        target=target,
        precision="bf16",
        example_inputs=bert.example_inputs(),
        dynamic_shapes=bert.dynamic_shapes(),
    )
    products = 4 * module.config.num_hidden_layers
    for sizes in ({"batch": 1, "sequence": 1}, {"batch": 3, "sequence": 37}):
        inputs = {name: x.numpy() for name, x in bert.example_inputs(**sizes).items()}
        found = list(model.run(inputs).values())
        with torch.no_grad():
            expected = list(torch_module(module)(inputs).values())
        for ours, theirs in zip(found, expected, strict=True):
            largest = max(1.0, float(np.abs(theirs).max()))
            error = np.abs(ours - theirs)
            assert error.max() <= EPSILON * products * largest
            assert np.sqrt(np.mean(error**2)) <= EPSILON * np.sqrt(2 * products)
            assert error.max() > 0


def test_what_the_code_needs_is_in_the_manifest(tmp_path: Path) -> None:
    path = export_tiny("bert", tmp_path / "bert.onnx")
    wide = dfc.compile(path, out=tmp_path / "wide.dfc")
    low = dfc.compile(path, out=tmp_path / "low.dfc", precision="bf16")
    target = parse_target("cpu")
    assert wide.manifest["target"]["cpu_features"] == list(target.cpu_features)
    assert wide.manifest["target"]["name"] == target.name
    assert low.manifest["target"]["cpu_features"] == list(target.extended().cpu_features)
    assert low.manifest["target"]["name"] == target.extended().name
    assert wide.manifest["numeric_policy"]["precision"] == "f32"
    assert low.manifest["numeric_policy"]["precision"] == "bf16"
    sizes = [(tmp_path / name / "weights.bin").stat().st_size for name in ("wide.dfc", "low.dfc")]
    assert sizes[1] < sizes[0]


def test_a_program_without_products_needs_nothing_more() -> None:
    model = dfc.compile(parse(PLAIN % "@y: f32[S, 4] = neg @x"), precision="bf16")
    assert model.manifest["target"]["cpu_features"] == list(parse_target("cpu").cpu_features)


def test_a_cpu_without_the_extension_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = parse(
        "program p(S) {\n input @x: f32[S, 4]\n weight @w: f32[4, 4]\n output @y: f32[S, 4]\n"
        "state main {\n @y: f32[S, 4] = matmul @x, @w\n }\n}"
    )
    extended = parse_cpu("cpu:x86-64-v4+amx")
    out = tmp_path / "p.dfc"
    given = Options(target=extended, precision="bf16")
    compile_artifact(with_random_weights(program), out, given)
    facts = json.loads((out / "manifest.json").read_text())
    assert {"amx_bf16", "amx_tile", "avx512_bf16"} <= set(facts["target"]["cpu_features"])
    less = frozenset(facts["target"]["cpu_features"]) - {"amx_bf16"}
    monkeypatch.setattr(runtime_manifest, "cpu_features", lambda: less)
    with pytest.raises(ModelError, match=r"x86-64-v4\+amx; this CPU lacks amx_bf16"):
        dfc.load(out)


def test_a_pipeline_of_ones_own_decides_the_precision() -> None:
    program = parse(PLAIN % "@y: f32[S, 4] = neg @x")
    with pytest.raises(UsageError, match="for the pipelines that have a name"):
        dfc.compile(program, precision="bf16", pipeline=["canonicalize"])


def test_verify_names_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = export_tiny("bert", tmp_path / "bert.onnx")
    assert main(["verify", str(path), "--precision", "bf16", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["precision"] == "bf16"
    assert 0 < found["outputs"][0]["max_abs"] <= found["tolerance"]
    assert main(["verify", str(path), "--precision", "bf16"]) == 0
    assert "products multiply in bfloat16" in capsys.readouterr().out
