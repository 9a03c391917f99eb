"""What `benchmarks.gpu` prepares: artifacts, what travels, and weights that are made again."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
import torch

import dfcompiler
from benchmarks.gpu import main
from benchmarks.on_gpu import prepare as preparing
from benchmarks.on_gpu.cases import WEIGHTS, Case, attention, encoder
from benchmarks.on_gpu.measure import error
from benchmarks.on_gpu.modules import AddNorm, DecodeStep, Gated
from benchmarks.on_gpu.peers import MissingError, Work, ready
from benchmarks.on_gpu.prepare import export_onnx, prepare, prepare_without_weights
from benchmarks.on_gpu.weights import make_weights
from dfcompiler.api import import_model
from dfcompiler.api.optimizing import rewritten
from dfcompiler.errors import UnsupportedError
from dfcompiler.runtime.manifest import read_manifest
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.tiny_gpu_case import TINY

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    encoder("encoder", (1, 2, 9, 64, 2), torch.bfloat16),
    encoder("encoder_f16", (2, 1, 33, 64, 2), torch.float16),
    replace(attention(16384, 64, True), inputs=dict.fromkeys("qkv", (1, 2, 37, 64))),
    Case(
        "add_norm", torch.bfloat16, lambda: AddNorm(72), dict.fromkeys(("x", "residual"), (5, 72))
    ),
    Case("softmax", torch.bfloat16, lambda: torch.nn.Softmax(-1), {"input": (5, 72)}),
    Case("gated", torch.bfloat16, Gated, dict.fromkeys(("gate", "up"), (5, 72))),
    Case(
        "decode",
        torch.bfloat16,
        lambda: DecodeStep(2, 128, 4, 2, 96, 6),
        {"x": (1, 1, 128), "keys": (2, 1, 2, 6, 32), "values": (2, 1, 2, 6, 32)},
    ),
)


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_cases_are_right_where_their_code_is_emulated(case: Case) -> None:
    module, inputs = case.module(), case.example(1)
    program = import_model(module, example_inputs=inputs)
    model = emulated_model(rewritten(program, parse_target("cuda:sm_90")).program)
    storage = {torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16}[case.dtype]
    arrays = {name: value.float().numpy().astype(storage) for name, value in inputs.items()}
    (found,) = model.run(arrays).values()
    assert found.dtype == storage
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(*(value.double() for value in inputs.values()))
        theirs = error(module(**inputs), exact)
    assert error(torch.from_numpy(found.astype(np.float32)), exact) <= 1.5 * theirs


def test_a_layer_of_a_decode_step_is_five_launches() -> None:
    case = SMALL[-1]
    program = import_model(case.module(), example_inputs=case.example(1))
    ops = list(rewritten(program, parse_target("cuda:sm_90")).program.ops())
    kernels = [op.attr("kernel", op.kind) for op in ops if not op.attr("alias", False)]
    assert kernels == 2 * ["linear", "attention", "linear", "linear", "linear"]
    inner = [one.kind for op in ops for one in op.region]
    assert (inner.count("rotary"), inner.count("rms_norm"), inner.count("silu")) == (4, 4, 2)


@pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
def test_every_expansion_is_prepared(tmp_path: Path) -> None:
    linear = Case(
        "tiny", torch.bfloat16, lambda: torch.nn.Linear(64, 64), {"input": (64, 64)}, flops=1.0
    )
    case = replace(linear, expansions=SMALL[0].expansions, peers=("eager", "onnxruntime"))
    prepare(tmp_path, "cuda:sm_90", [case])
    found = {
        name: read_manifest(tmp_path / folder).implementations
        for name, folder in case.artifacts.items()
    }
    products = {"mma.sync", "wgmma", "cublaslt"}
    assert {name: words & products for name, words in found.items()} == {
        "ours": {"mma.sync"},
        "ours_wgmma": {"wgmma"},
        "ours_cutlass": {"mma.sync"},  # 64 rows are too few for it
        "ours_cublaslt": {"cublaslt"},
    }
    assert (tmp_path / case.onnx).is_file()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    prepare(tmp_path, "cuda:sm_90", [case])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


BLOCKER = """
import sys
from importlib.machinery import PathFinder
class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)
sys.meta_path = [Rest if one is PathFinder else one for one in sys.meta_path]
"""


def without_packages(blocked: Sequence[str], code: str) -> subprocess.CompletedProcess[str]:
    """A process that runs `code` where some packages are not installed."""
    whole = f"BLOCKED = {set(blocked)!r}\n{BLOCKER}{code}"
    return subprocess.run([sys.executable, "-c", whole], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case as `prepare` makes it."""
    if toolkit() is None:
        pytest.skip("the CUDA toolkit's headers are missing")
    folder = tmp_path_factory.mktemp("whole")
    prepare(folder, "cuda:sm_90", [TINY])
    return folder


@pytest.fixture
def travelling(whole: Path, tmp_path: Path) -> Path:
    """The same as it travels."""
    folder = tmp_path / "travelling"
    shutil.copytree(whole, folder)
    prepare_without_weights(folder, "cuda:sm_90", [TINY])
    assert not list(folder.rglob(WEIGHTS))
    return folder


def test_weights_are_made_again_where_little_is_installed(whole: Path, travelling: Path) -> None:
    blocked = ("dace", "onnx", "onnxscript", "onnxruntime", "scipy", "safetensors", "rich", "typer")
    code = f"""
from pathlib import Path
from benchmarks.on_gpu.weights import check_installed, make_weights
from tests.tiny_gpu_case import TINY
check_installed()
print(make_weights(Path({str(travelling)!r}), [TINY]), BLOCKED & {{*sys.modules}})
"""
    done = without_packages(blocked, code)
    assert done.stdout == "{} set()\n", done.stderr
    artifacts = TINY.artifacts.values()
    for name in artifacts:
        made = travelling / name / WEIGHTS
        assert made.read_bytes() == (whole / name / WEIGHTS).read_bytes()
        read_manifest(travelling / name, verify_hashes=True)
    assert len({(travelling / name / WEIGHTS).stat().st_ino for name in artifacts}) == 1
    assert not list(travelling.rglob("*.part"))


def test_what_weights_need_is_asked_for_first() -> None:
    code = "from benchmarks.on_gpu.weights import check_installed\ncheck_installed()"
    done = without_packages(("ml_dtypes", "networkx"), code)
    assert done.returncode == 1
    assert done.stderr == "benchmarks.gpu: 'weights' needs ml_dtypes, networkx; not installed\n"


def test_weights_that_differ_cost_their_case(travelling: Path) -> None:
    other = replace(TINY, build=lambda: torch.nn.Linear(64, 48).apply(shifted))
    longer = replace(TINY, build=lambda: torch.nn.Linear(64, 40))
    (said,) = make_weights(travelling, [other]).items()
    assert said[0] == "tiny"
    assert said[1].startswith("WeightsError: the weights of tiny.dfc have the sha256 ")
    (said,) = make_weights(travelling, [longer]).items()
    assert said[1].startswith("WeightsError: a weight is {'name': ")
    assert "'bytes': 80}; the manifest of tiny.dfc expects" in said[1]
    assert not list(travelling.rglob(f"{WEIGHTS}*"))
    assert make_weights(travelling, [TINY]) == {}


def shifted(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1


def test_an_artifact_without_weights_says_what_makes_them(travelling: Path) -> None:
    work = Work(TINY, travelling, TINY.module(), {}, torch.zeros(1))
    with pytest.raises(MissingError, match=r"^tiny\.dfc has no weights\.bin; 'weights' makes it$"):
        ready("ours", work)


def test_a_run_says_which_cases_have_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "softmax.dfc").mkdir()
    with pytest.raises(SystemExit, match="no CUDA device"):
        main(["run", str(tmp_path), "--case", "softmax", "--case", "gated"])
    assert capsys.readouterr().err == "softmax has no weights; 'weights' makes them\n"


def test_who_makes_weights_is_told_which_cases_have_none_still(tmp_path: Path) -> None:
    (tmp_path / "softmax.dfc").mkdir()
    with pytest.raises(SystemExit, match=r"^softmax: FileNotFoundError: .*manifest\.json"):
        main(["weights", str(tmp_path), "--case", "softmax", "--case", "gated"])


def test_large_onnx_files_are_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparing, "compile_artifacts", lambda case, folder, target: None)
    monkeypatch.setattr(preparing, "export_onnx", lambda case, path: path.touch())
    small = replace(TINY, build=lambda: torch.nn.Linear(512, 1000))
    large = replace(small, name="large", build=lambda: torch.nn.Linear(512, 1024))
    prepare_without_weights(tmp_path, "cuda:sm_90", [small, large])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
    assert "large.onnx: left out, it is large\n" in capsys.readouterr().err


def test_an_expansion_that_the_target_does_not_have_is_refused(tmp_path: Path) -> None:
    case = encoder("tiny", (1, 1, 16, 32, 2), torch.bfloat16)
    with pytest.raises(UnsupportedError, match="this is bf16 on cuda:sm_80"):
        dfcompiler.compile(
            case.module(),
            tmp_path / "m.dfc",
            "cuda:sm_80",
            example_inputs=case.example(0),
            expansions={"matmul": "wgmma"},
        )
    assert not any(tmp_path.iterdir())


def test_the_onnx_file_computes_the_same(tmp_path: Path) -> None:
    case = encoder("tiny", (1, 2, 9, 32, 2), torch.float32)
    export_onnx(case, tmp_path / case.onnx)
    session = onnxruntime.InferenceSession(tmp_path / case.onnx, providers=["CPUExecutionProvider"])
    inputs = case.example(5)
    (found,) = session.run(["output"], {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = case.module()(**inputs)
    torch.testing.assert_close(torch.from_numpy(found), expected)
