"""The Python face: what it takes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import dfcompiler as dfc
from dfcompiler.api import Options, compile_artifact
from dfcompiler.errors import ModelError, UnsupportedError, UsageError
from dfcompiler.ir import parse
from tests.conftest import SMALL_PROGRAM
from tests.tolerances import assert_close


def inputs(batch: int = 2, length: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((batch, length)).astype(np.float32),
        "ids": rng.integers(0, 9, (batch, length)),
        "attention_mask": np.ones((batch, length), np.int64),
    }


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, dfcompiler; heavy = {'numpy', 'dace', 'onnx', 'torch', 'sympy', 'rich', "
        "'typer'} & set(sys.modules); sys.exit(f'{heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_needs_numpy_only(small_artifact: Path) -> None:
    code = (
        "import sys; "
        "blocked = ('dace', 'onnx', 'torch', 'sympy', 'ml_dtypes', 'rich', 'typer'); "
        "sys.modules.update(dict.fromkeys(blocked)); "
        "import dfcompiler, numpy as np; "
        f"m = dfcompiler.load({str(small_artifact)!r}); "
        "z = np.zeros((1, 2), 'i8'); "
        "print(m.run({'x': np.ones((1, 2), 'f4'), 'ids': z, 'attention_mask': z})['sum'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 2)", done.stderr


def test_a_temporary_artifact_goes_with_its_model() -> None:
    model = dfc.compile(parse(SMALL_PROGRAM))
    path = model.path
    assert path.is_dir()
    outputs = model.run(inputs())
    assert_close(outputs["shifted"], inputs()["ids"] + 1)
    del model
    gc.collect()
    assert not path.parent.exists()


def test_sizes_are_fixed_by_symbol_and_by_input(small_program: Path) -> None:
    program = dfc.import_model(small_program)
    fixed = dfc.specialize(program, {"batch": 2, "x": (None, 7)})
    assert fixed.symbols == ()
    assert fixed.container("sum").type.shape == (2, 7)
    bounded = dfc.specialize(program, limits={"length": 8})
    assert [s.maximum for s in bounded.symbols] == [None, 8]


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"depth": 1}, "no free size depth; its free sizes are: batch, length"),
        ({"y": (1, 2)}, "no input y; its inputs are: x, ids, attention_mask"),
        ({"x": (1,)}, "1 sizes were given"),
        ({"x": (1, 3), "ids": (1, 4)}, "contradicts length = 3"),
        ({"length": 65}, "length cannot be fixed to 65; the model takes 1 to 64"),
        ({"batch": 0}, "batch cannot be fixed to 0; the model takes 1 and more"),
        ({"x": (1, 2.5)}, "length = 2.5 is no integer"),
    ],
)
def test_wrong_sizes_are_refused(
    small_program: Path, shapes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        dfc.specialize(dfc.import_model(small_program), shapes)


def test_models_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a int is no model"):
        dfc.import_model(7)
    with pytest.raises(UsageError, match="there is no file"):
        dfc.import_model(tmp_path / "missing.onnx")
    with pytest.raises(UsageError, match="is a folder; expected a model file"):
        dfc.import_model(tmp_path)
    (tmp_path / "garbage.ir").write_text("garbage")
    with pytest.raises(ModelError, match="is no program: expected program NAME"):
        dfc.import_model(tmp_path / "garbage.ir")


def test_a_tokenizer_that_is_none_is_refused(small_program: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    words.write_text("not JSON")
    with pytest.raises(UsageError, match="is no tokenizer; expected"):
        dfc.compile(small_program, out=tmp_path / "m.dfc", tokenizer=words)
    assert not (tmp_path / "m.dfc").exists()


def test_a_program_text_without_its_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.ir"
    path.write_text(
        "program p() {\n  weight @w: f32[4]\n  output @y: f32[4]\n"
        "  state main {\n    @y: f32[4] = neg @w\n  }\n}\n"
    )
    with pytest.raises(ModelError, match="without the values of its 1 weights"):
        dfc.import_model(path)


def test_precision_is_never_lowered_silently() -> None:
    with pytest.raises(UnsupportedError, match="precision f16"):
        dfc.compile(parse(SMALL_PROGRAM), precision="f16")


def test_example_inputs_in_the_place_of_the_folder_are_refused() -> None:
    with pytest.raises(dfc.DfcError, match="folder is a tuple; expected a path"):
        dfc.compile(parse(SMALL_PROGRAM), (np.ones(3),))  # type: ignore[arg-type]


def test_an_existing_artifact_is_replaced_only_by_force(tmp_path: Path) -> None:
    out = tmp_path / "m.dfc"
    program = parse(SMALL_PROGRAM)
    dfc.compile(program, out=out).close()
    with pytest.raises(UsageError, match="exists already"):
        dfc.compile(program, out=out)
    dfc.compile(program, out=out, force=True).close()
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no artifact"):
        dfc.compile(program, out=other, force=True)
    assert (other / "thesis.txt").read_text() == "years of work"


def test_a_pipeline_is_a_name_a_file_or_passes(small_program: Path, tmp_path: Path) -> None:
    program = dfc.import_model(small_program)
    names = ["eliminate-dead-code"]
    by_names = dfc.optimize(program, pipeline=names)
    file = tmp_path / "p.toml"
    file.write_text('passes = ["eliminate-dead-code"]\n')
    by_file = dfc.optimize(program, pipeline=str(file))
    assert [r.name for r in by_names.records] == [r.name for r in by_file.records] == names
    with pytest.raises(UsageError, match="there is no pipeline fast"):
        dfc.optimize(program, pipeline="fast")


# ------------------------------------------------------------------------------ the artifact cache


def stages(model: Path, out: Path, **options: Any) -> set[str]:
    return set(compile_artifact(model, out, Options(force=True, **options)).seconds)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_compiling_again_is_a_copy_with_the_same_report(tmp_path: Path) -> None:
    model = tmp_path / "m.ir"
    model.write_text(SMALL_PROGRAM.replace("program small", f"program {tmp_path.name}_unique"))
    first = compile_artifact(model, tmp_path / "a.dfc")
    again = compile_artifact(model, tmp_path / "b.dfc")
    assert set(first.seconds) == {"recall", "import", "optimize", "lower", "build"}
    assert set(again.seconds) == {"recall"}
    assert again.report == first.report
    assert contents(tmp_path / "a.dfc") == contents(tmp_path / "b.dfc")
    assert set(stages(model, tmp_path / "b.dfc", shapes={"batch": 2})) > {"recall"}
    with pytest.raises(UsageError, match="exists already"):
        compile_artifact(model, tmp_path / "b.dfc")


def test_changed_external_data_is_noticed(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], tmp_path.name, [x], [y], [weight])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    values = np.eye(4, dtype=np.float32)
    ones = {"x": np.ones((1, 4), np.float32)}
    for factor in (1, 2):
        (tmp_path / "w.bin").write_bytes((values * factor).tobytes())
        assert "build" in stages(tmp_path / "m.onnx", tmp_path / "m.dfc")
        assert stages(tmp_path / "m.onnx", tmp_path / "m.dfc") == {"recall"}
        model = dfc.load(tmp_path / "m.dfc")
        assert_close(model.run(ones)["y"], ones["x"] * factor)
