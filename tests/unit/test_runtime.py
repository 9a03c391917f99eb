"""Loading and running artifacts, and everything that may be wrong with one or with a call."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfcompiler.errors import DfcError, InputError, ModelError, UsageError
from dfcompiler.runtime import Model, load
from dfcompiler.runtime import manifest as manifest_module
from tests.artifacts import START, build_ledger, build_text, expected_ledger
from tests.tolerances import assert_close

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_ledger(tmp_path_factory.mktemp("runtime") / "ledger.dfc")


@pytest.fixture
def model(artifact: Path) -> Model:
    return load(artifact)


def call(**changes: Any) -> dict[str, Any]:
    inputs = {"ids": np.array([1, 9, 4]), "scale": np.array(0.5, np.float32), **changes}
    return {name: value for name, value in inputs.items() if value is not None}


# --------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(("size", "steps"), [(1, 1), (3, 2), (64, 8), (17, 5)])
def test_results(model: Model, size: int, steps: int) -> None:
    ids = np.random.default_rng(size).integers(-10, 10, size)
    found = model.run(call(ids=ids), N=steps)
    rows, sums = expected_ledger(ids, 0.5, steps, START.astype(np.float64))
    assert_close(found["rows"], rows.astype(np.float32))
    assert_close(found["sums"], sums.astype(np.float32))
    assert_close(found["flags"], ids > 4)
    assert_close(found["count"], np.array(1))
    assert list(found) == ["rows", "sums", "count", "flags"]


def test_sizes_may_change_from_call_to_call(model: Model) -> None:
    for size in (2, 64, 1, 33, 64):
        ids = np.arange(size) % 10
        rows, _ = expected_ledger(ids, 0.5, 1, START)
        assert_close(model.run(call(ids=ids), N=1)["rows"], rows.astype(np.float32))


def test_results_belong_to_the_caller(model: Model) -> None:
    first = model.run(call(), N=1)["rows"]
    kept = first.copy()
    model.run(call(scale=np.float32(9)), N=1)
    np.testing.assert_array_equal(first, kept)


def test_nan_is_a_value(model: Model) -> None:
    assert np.isnan(model.run(call(scale=np.float32("nan")), N=1)["rows"]).all()


def test_state_persists_until_reset(model: Model) -> None:
    counts = [int(model.run(call(), N=2)["count"]) for _ in range(3)]
    assert counts == [1, 2, 3]
    later = model.run(call(), N=1)["sums"]
    model.reset()
    first = model.run(call(), N=1)
    assert int(first["count"]) == 1
    assert_close(first["sums"], expected_ledger(call()["ids"], 0.5, 1, START)[1].astype(np.float32))
    assert not np.allclose(first["sums"], later)


def test_a_clone_has_its_own_fresh_state(model: Model) -> None:
    model.run(call(), N=1)
    clone = model.clone()
    assert int(clone.run(call(), N=1)["count"]) == 1
    assert int(model.run(call(), N=1)["count"]) == 2
    model.close()
    assert int(clone.run(call(), N=1)["count"]) == 2


def test_clones_in_threads(model: Model) -> None:
    """Every thread sees the results of its own inputs and its own state."""
    failures: list[str] = []

    def work(number: int) -> None:
        mine = model.clone()
        ids = np.full(8 + number, number)
        total = START.astype(np.float64)
        for turn in range(1, 51):
            rows, sums = expected_ledger(ids, 0.25, 1, total)
            found = mine.run({"ids": ids, "scale": np.float32(0.25)}, N=1)
            total = sums[-1]
            if int(found["count"]) != turn or not np.allclose(found["rows"], rows, rtol=1e-5):
                failures.append(f"thread {number}, turn {turn}")
            # Terms of both signs cancel: the error is as large as the sums on the way make it.
            if not np.allclose(found["sums"], sums, rtol=1e-5, atol=1e-5 * np.abs(sums).max()):
                failures.append(f"sums of thread {number}, turn {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_one_instance_in_threads(model: Model) -> None:
    """Calls on one instance wait for each other."""
    counts: list[int] = []

    def work() -> None:
        for _ in range(50):
            counts.append(int(model.run(call(), N=1)["count"]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 201))


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_threads(artifact: Path, threads: int) -> None:
    model = load(artifact, threads=threads)
    rows, _ = expected_ledger(call()["ids"], 0.5, 1, START)
    assert_close(model.run(call(), N=1)["rows"], rows.astype(np.float32))


def test_signature(model: Model) -> None:
    signature = model.signature
    assert [str(tensor) for tensor in signature.inputs] == ["ids: i64[S]", "scale: f32[]"]
    assert [tensor.shape for tensor in signature.outputs] == [("S", 4), ("N", 4), (), ("S",)]
    assert [str(symbol) for symbol in signature.symbols] == ["S <= 64", "N <= 8"]
    assert [tensor.name for tensor in signature.persistent] == ["total", "calls"]
    assert repr(model).startswith("<Model ledger(ids: i64[S], scale: f32[]) -> (rows: f32[S, 4]")


def test_closing(model: Model) -> None:
    with model:
        model.run(call(), N=1)
    assert "closed" in repr(model)
    model.close()
    for use in (lambda: model.run(call(), N=1), model.reset, model.clone):
        with pytest.raises(UsageError, match="is closed"):
            use()


def test_arena_grows_only(model: Model) -> None:
    assert model.arena_bytes == 0
    model.run(call(ids=np.arange(40) % 10), N=1)
    large = model.arena_bytes
    model.run(call(ids=np.arange(2)), N=1)
    assert model.arena_bytes == large > 0


# ------------------------------------------------------------------------------- inputs of a call


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10)[::2],
        np.arange(6)[::-1],
        np.frombuffer(bytes(3) + np.arange(6).tobytes(), np.int64, offset=3),
        np.arange(6)[None].T[:, 0],
        [0, 1, 2],
    ],
    ids=["strided", "reversed", "unaligned", "transposed", "list"],
)
def test_any_memory_layout(model: Model, array: Any) -> None:
    ids = np.array(array)
    rows, _ = expected_ledger(ids, 0.5, 1, START)
    assert_close(model.run(call(ids=array), N=1)["rows"], rows.astype(np.float32))


@pytest.mark.parametrize(
    ("inputs", "sizes", "message"),
    [
        (call(ids=None), {"N": 1}, "inputs missing ids; expected ids: i64[S], scale: f32[]"),
        (call(mask=1), {"N": 1}, "inputs not expected: mask; expected"),
        (call(ids=None, idz=1), {"N": 1}, "inputs missing ids; not expected: idz"),
        (call(ids=np.arange(3, dtype=np.int32)), {"N": 1}, "ids is int32; expected int64"),
        (call(ids=np.arange(3).astype(">i8")), {"N": 1}, "ids is >i8; expected int64"),
        (call(scale=1.0), {"N": 1}, "scale is float64; expected float32"),
        (call(ids="text"), {"N": 1}, "ids is <U4; expected int64"),
        (call(ids=np.zeros((1, 3), np.int64)), {"N": 1}, "ids has rank 2, shape [1, 3]; expected"),
        (call(ids=np.zeros(0, np.int64)), {"N": 1}, "ids has S = 0; expected 1 to 64"),
        (call(ids=np.zeros(65, np.int64)), {"N": 1}, "ids has S = 65; the model takes 64 at most"),
        (call(ids=np.array([3, 10])), {"N": 1}, "(embedding): index 10 is out of range"),
        (call(ids=np.array([-11])), {"N": 1}, "(embedding): index -11 is out of range"),
        (call(), {}, "no input fixes the size N"),
        (call(), {"N": 9}, "N = 9; the model takes 8 at most"),
        (call(), {"N": 0}, "N = 0; expected 1"),
        (call(), {"N": 1 << 40}, "expected 1 to"),
        (call(), {"N": 2.0}, "N = 2.0 is no integer"),
        (call(), {"N": True}, "N = True is no integer"),
        (call(), {"N": 1, "M": 1}, "there is no size M; this model's sizes are: S, N"),
        (call(), {"N": 1, "S": 4}, "S = 4; elsewhere it is 3"),
    ],
)
def test_wrong_calls(
    model: Model, inputs: dict[str, Any], sizes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        model.run(inputs, **sizes)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    model.reset()
    assert int(model.run(call(), N=1)["count"]) == 1


SHAPES = """
program shapes(S, B) {
  input @a: f32[B, 2*S]
  input @b: f32[S, B]
  input @h: f32[3]
  output @c: f32[2*B, S]
  output @d: f32[S, S + B]
  state main {
    %0: f32[S, 2*B] = concat @b, @b {axis = 1}
    @c: f32[2*B, S] = transpose %0 {perm = [1, 0]}
    %1: f32[S, S] = constant {value = 0.0}
    @d: f32[S, S + B] = concat %1, @b {axis = 1}
  }
}
"""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text(SHAPES, tmp_path_factory.mktemp("shapes") / "m.dfc")


def test_shape_expressions(shapes: Path) -> None:
    model = load(shapes)
    b = np.arange(12, dtype=np.float32).reshape(4, 3)
    inputs = {"a": np.zeros((3, 8), np.float32), "b": b, "h": np.zeros(3, np.float32)}
    found = model.run(inputs)
    np.testing.assert_array_equal(found["c"], np.concatenate([b, b], axis=1).T)
    np.testing.assert_array_equal(found["d"], np.concatenate([np.zeros((4, 4)), b], axis=1))
    for name, shape, message in [
        ("a", (3, 9), "axis 1 of a has 9 elements; expected 8 = 2*S"),
        ("a", (2, 8), "b has B = 3; elsewhere it is 2"),
        ("h", (4,), "axis 0 of h has 4 elements; expected 3"),
    ]:
        with pytest.raises(InputError) as caught:
            model.run({**inputs, name: np.zeros(shape, np.float32)})
        assert caught.value.message == message


DTYPES = ["f64", "f32", "f16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool"]


def test_every_dtype(tmp_path: Path) -> None:
    names = "".join(f"  input @x_{d}: {d}[S]\n  output @y_{d}: {d}[S]\n" for d in DTYPES)
    ops = "".join(f"    @y_{d}: {d}[S] = copy @x_{d}\n" for d in DTYPES)
    model = load(build_text(f"program p(S) {{\n{names}  state s {{\n{ops}  }}\n}}", tmp_path / "m"))
    rng = np.random.default_rng(0)
    inputs = {
        f"x_{tensor.dtype}": (rng.random(5) * 3).astype(tensor.numpy_name)
        for tensor in model.signature.inputs
    }
    for name, array in model.run(inputs).items():
        assert array.dtype == inputs["x" + name[1:]].dtype
        np.testing.assert_array_equal(array, inputs["x" + name[1:]])


def test_bfloat16_with_and_without_ml_dtypes(tmp_path: Path) -> None:
    import ml_dtypes

    text = """
program p(S) {
  input @x: bf16[S]
  output @y: bf16[S]
  state s {
    @y: bf16[S] = copy @x
  }
}
"""
    folder = build_text(text, tmp_path / "m.dfc")
    values = np.array([1, 2.5, -3], ml_dtypes.bfloat16)
    found = load(folder).run({"x": values})["y"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, values)
    bits = values.view(np.uint16).tolist()
    code = f"y = load({str(folder)!r}).run({{'x': np.array({bits}, np.uint16)}})['y']"
    assert json.loads(run_blocked(f"{code}\nprint(y.tolist())")) == bits


def run_blocked(code: str) -> str:
    """The output of `code` in a process where only numpy and the standard library are."""
    blocker = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name)
BLOCKED = {"dace", "onnx", "torch", "sympy", "ml_dtypes", "scipy", "networkx", "safetensors",
           "rich", "typer", "onnxruntime", "passes"}
sys.meta_path.insert(0, Blocker())
import numpy as np
from dfcompiler import load
"""
    done = subprocess.run(
        [sys.executable, "-c", blocker + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_runs_where_nothing_else_is_installed(artifact: Path) -> None:
    code = f"""
m = load({str(artifact)!r}, verify_hashes=True)
r = m.run({{"ids": np.array([1, 9, 4]), "scale": np.float32(0.5)}}, N=2)
print(r["rows"].tolist())
"""
    rows, _ = expected_ledger(np.array([1, 9, 4]), 0.5, 2, START)
    np.testing.assert_allclose(json.loads(run_blocked(code)), rows, rtol=1e-5)


# ------------------------------------------------------------------------------- broken artifacts


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        facts = json.loads(path.read_text())
        change(facts)
        path.write_text(json.dumps(facts))

    return apply


def flip(name: str, offset: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[offset] ^= 0xFF
        (folder / name).write_bytes(data)

    return apply


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9]) and None


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no manifest", lambda f: (f / "manifest.json").unlink(), "is no artifact"),
    ("half a manifest", truncate("manifest.json"), "is no manifest|is damaged"),
    ("binary manifest", lambda f: (f / "manifest.json").write_bytes(b"\xff\0"), "is damaged"),
    ("list", lambda f: (f / "manifest.json").write_text("[]"), "is no manifest of an artifact"),
    ("foreign", lambda f: (f / "manifest.json").write_text('{"a": 1}'), "is no manifest"),
    ("newer", edit(lambda m: m.update(schema_version=99)), "schema version 99; this version reads"),
    ("older", edit(lambda m: m.update(schema_version=0)), "schema version 0; expected 1"),
    ("no signature", edit(lambda m: m.pop("signature")), "is damaged: KeyError"),
    ("dtype", edit(lambda m: m["signature"]["inputs"][0].update(dtype="f7")), "is damaged"),
    ("shape", edit(lambda m: m["signature"]["inputs"][0].update(shape=[None])), "is damaged"),
    ("name", edit(lambda m: m.update(name="other")), "is no library of other"),
    ("escape", edit(lambda m: m["files"].update({"../x": m["files"]["model.h"]})), "outside of it"),
    ("no library listed", edit(lambda m: m["files"].pop("model.so")), "lists no model.so"),
    ("cpu", edit(lambda m: m["target"]["cpu_features"].append("amx_magic")), "CPU lacks amx_magic"),
    ("no library", lambda f: (f / "model.so").unlink(), "model.so is missing"),
    ("short library", truncate("model.so"), "model.so has .* bytes; expected"),
    ("no weights", lambda f: (f / "weights.bin").unlink(), "weights.bin is missing"),
    ("short weights", truncate("weights.bin"), "weights.bin has .* bytes; expected"),
    ("foreign weights", flip("weights.bin", 20), "belongs to another model"),
    ("no source", lambda f: (f / "src" / "build.sh").unlink(), "build.sh is missing"),
    ("damaged library", flip("model.so", 4000), "model.so was changed"),
    ("no library at all", lambda f: forge(f, bytes(100)), "model.so cannot be loaded"),
]


def forge(folder: Path, data: bytes) -> None:
    """Another library, with its hash in the manifest."""
    (folder / "model.so").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    row = {"bytes": len(data), "sha256": digest}
    edit(lambda facts: facts["files"].update({"model.so": row}))(folder)


@pytest.mark.parametrize(
    ("damage", "message"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE]
)
def test_broken_artifacts(
    damage: Callable[[Path], Any], message: str, artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m.dfc"
    shutil.copytree(artifact, folder)
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["weights.bin", "model.so", "model.h", "src/program.cpp"])
def test_hashes_on_request(name: str, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m.dfc"
    shutil.copytree(artifact, folder)
    load(folder, verify_hashes=True)
    flip(name, -1)(folder)
    with pytest.raises(ModelError, match=f"{name} was changed"):
        load(folder, verify_hashes=True)


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is a file"):
        load(tmp_path / "file")
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "nothing")


def test_another_machine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module.platform, "machine", lambda: "aarch64")
    if json.loads((artifact / "manifest.json").read_text())["target"]["cpu_features"]:
        with pytest.raises(ModelError, match="this machine is aarch64"):
            load(artifact)


# ------------------------------------------------------------------------------------ replacement


def text_with(constant: float) -> str:
    return f"""
program p(S) {{
  input @x: f32[S]
  output @y: f32[S]
  state s {{
    %0: f32[] = constant {{value = {constant}}}
    @y: f32[S] = add @x, %0
  }}
}}
"""


def test_a_replaced_artifact_is_loaded_anew(tmp_path: Path) -> None:
    folder = tmp_path / "m.dfc"
    zeros = np.zeros(2, np.float32)
    models = []
    for constant in (1.0, 2.0):
        if folder.exists():
            shutil.rmtree(folder)
        build_text(text_with(constant), folder)
        models.append(load(folder))
    assert [model.run({"x": zeros})["y"][0] for model in models] == [1, 2]


def test_two_models_at_once(artifact: Path, shapes: Path) -> None:
    first, second = load(artifact), load(shapes)
    inputs = {"a": (1, 2), "b": (1, 1), "h": (3,)}
    second.run({name: np.zeros(shape, np.float32) for name, shape in inputs.items()})
    assert int(first.run(call(), N=1)["count"]) == 1


def test_weights_are_mapped_and_shared(artifact: Path) -> None:
    models = [load(artifact), load(artifact).clone()]
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line for line in maps if str(artifact / "weights.bin") in line]
    assert mapped
    assert all(line.split()[1] == "r--s" for line in mapped)
    del models


def test_errors_are_ours(model: Model) -> None:
    with pytest.raises(DfcError):
        model.set_threads(-1)
