"""Loops on an emulated GPU: what the host waits for, what is captured, and what comes out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.api.optimizing import rewritten
from dfcompiler.codegen import build
from dfcompiler.errors import DeviceError
from dfcompiler.ir import parse
from dfcompiler.lowering import lower
from dfcompiler.runtime import DeviceArray, DeviceModel, load
from dfcompiler.target import parse_target
from tests.cuda_emulation import emulated_model, toolkit
from tests.cuda_emulation.artifact import emulate_artifact
from tests.unit.test_cuda_artifact import has_nvcc
from tests.unit.test_make_generation_loop import STEP

pytestmark = pytest.mark.skipif(toolkit() is None, reason="the CUDA toolkit's headers are missing")
needs_nvcc = pytest.mark.skipif(not has_nvcc(), reason="nvcc is missing")

GPU = parse_target("cuda:sm_90")
COUNTER = STEP.replace("7", "11")
"""Predicts the sum of all tokens so far, modulo 11: each token is twice the one before."""
END = 6


def expected(ids: list[int], count: int) -> list[int]:
    return [sum(ids) * 2**i % 11 for i in range(count)]


@dataclass(frozen=True)
class Counts:
    """What the emulation counts: of the host's calls, and of kernels."""

    waits: int
    graph_launches: int
    captured_kernels: int
    unloaded_kernels: int

    @staticmethod
    def during(library: ctypes.CDLL, run: Callable[[], object]) -> Counts:
        before = Counts.now(library)
        run()
        after = Counts.now(library)
        return Counts(**{name: n - getattr(before, name) for name, n in vars(after).items()})

    @staticmethod
    def now(library: ctypes.CDLL) -> Counts:
        return Counts(
            **{n: getattr(library, f"emulation_{n}")() for n in Counts.__dataclass_fields__}
        )


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that counts, and ends at a token."""
    folder = tmp_path_factory.mktemp("artifact")
    result = rewritten(parse(COUNTER), GPU, "generation", end_tokens=(END,))
    artifact = build(result, lower(result.program, GPU), GPU, folder / "step.dfc")
    return emulate_artifact(artifact, folder / "emulated.dfc")


@pytest.fixture
def library(emulated: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(emulated / "model.so"), mode=ctypes.RTLD_LOCAL)


def opened(path: Path, **options: bool) -> DeviceModel:
    model = load(path, **options)
    assert isinstance(model, DeviceModel)
    return model


def check(model: DeviceModel, ids: list[int], count: int) -> None:
    """Runs from the start and compares with what the step predicts."""
    model.reset()
    found = model.run({"ids": np.array([ids])}, N=count)
    made = expected(ids, count)
    length = made.index(END) if END in made else count
    assert found["lengths"].tolist() == [length]
    assert found["tokens"][0].tolist() == made[:length] + [END] * (count - length)
    # The state on the device has read all but the last token.
    follows = model.run({"ids": np.array([made[: length + 1][-1:]])}, N=1)["tokens"]
    assert follows.tolist() == [[sum(ids + made[: length + 1]) % 11]]


@needs_nvcc
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(
    ("ids", "count", "length"),
    [
        ([1, 2, 3], 9, 0),  # the prompt's successor ends it: no iteration
        ([3], 9, 1),  # the first iteration does
        ([1, 1, 7], 9, 3),
        ([1], 10, 9),  # the last one
        ([1], 9, 9),
        ([5, 6], 16, 16),
        ([3], 1, 1),
        ([3], 2, 1),
    ],
    ids=str,
)
def test_tokens_whatever_the_graphs_hold(
    emulated: Path, library: ctypes.CDLL, ids: list[int], count: int, length: int, graphs: bool
) -> None:
    model = opened(emulated, graphs=graphs)
    assert [*expected(ids, count), END].index(END) == length
    before = Counts.now(library).unloaded_kernels
    for _ in range(4):
        check(model, ids, count)
    assert Counts.now(library).unloaded_kernels == before


@needs_nvcc
def test_waits_and_captures_do_not_grow_with_the_tokens(
    emulated: Path, library: ctypes.CDLL
) -> None:
    first, again = [], []
    model = opened(emulated)
    for count in (3, 8, 15):
        for found in (first, again):
            model.reset()
            run = lambda count=count: model.run({"ids": np.array([[5, 6]])}, N=count)  # noqa: E731
            found.append(Counts.during(library, run))
    # The flag is looked at once, in front of the first token of a call with new sizes.
    assert {c.waits for c in first} == {2}
    assert {c.graph_launches for c in (*first, *again)} == {1}
    assert len({c.captured_kernels for c in first}) == 1
    assert {c.unloaded_kernels for c in first} == {0}
    assert {(c.waits, c.captured_kernels) for c in again} == {(1, 0)}


@needs_nvcc
def test_a_call_with_its_loop_is_one_graph(emulated: Path, library: ctypes.CDLL) -> None:
    model = opened(emulated, graphs=True)
    counts = []
    for _ in range(3):
        model.reset()
        run = lambda: model.run({"ids": np.array([[5, 6]])}, N=9)  # noqa: E731
        counts.append(Counts.during(library, run))
    assert [c.graph_launches for c in counts] == [1, 1, 1]
    assert [c.waits for c in counts] == [2, 1, 1]
    assert counts[1].captured_kernels > counts[0].captured_kernels > counts[2].captured_kernels == 0


@needs_nvcc
def test_more_sizes_than_graphs_are_kept(emulated: Path) -> None:
    model = opened(emulated)
    for count in (*range(1, 13), 3):
        check(model, [5, 6], count)


@needs_nvcc
def test_a_call_on_a_stream_of_the_caller_is_not_waited_for(
    emulated: Path, library: ctypes.CDLL
) -> None:
    model = opened(emulated)
    model.use_stream(0)  # the default one, which cannot be captured
    ids = np.array([[5, 6]])
    there = DeviceArray(model._library, ids.shape, "i64", ids.dtype, lambda stream: None)
    assert not model._library.device_copy(there.address, ids.ctypes.data, ids.nbytes)
    found = None
    for waits in (1, 0):
        model.reset()
        before = Counts.now(library).waits
        found = model.run({"ids": there}, found, N=9)
        assert Counts.now(library).waits - before == waits
        assert np.asarray(found["tokens"]).tolist() == [expected([5, 6], 9)]


def test_a_loop_without_a_flag_waits_for_nothing() -> None:
    """Of a frame without the C interface; everything runs in two orders of threads."""
    model = emulated_model(rewritten(parse(COUNTER), GPU, "generation").program)
    ids = [1, 2, 3]
    found = {}
    for count in (1, 2, 3, 11):
        model.persistent = {}
        tokens = []

        def run(count: int = count, tokens: list[np.ndarray] = tokens) -> None:
            tokens.append(model.run({"ids": np.array([ids])}, {"N": count})["tokens"])

        found[count] = Counts.during(model.library.functions, run)
        assert tokens[0].tolist() == [expected(ids, count)]
        assert model.persistent["total"].tolist() == [sum(ids + expected(ids, count - 1))]
    assert [found[count].graph_launches for count in found] == [0, 0, 2, 2]
    assert len({counts.waits for counts in found.values()}) == 1
    assert found[3].captured_kernels == found[11].captured_kernels
    assert found[11].unloaded_kernels == 0


@needs_nvcc
def test_a_body_that_cannot_be_captured_is_an_error_and_blocks_nothing(
    emulated: Path, tmp_path: Path
) -> None:
    wait = "cudaStreamSynchronize(__state->gpu_context->streams[0]);"

    def waiting(name: str, text: str) -> str:
        head = "for (; DFC_NEXT_PASS(); ) {"
        return text.replace(head, f"{head} {wait}") if name == "program.cpp" else text

    model = opened(emulate_artifact(emulated, tmp_path / "waiting.dfc", waiting))
    for _ in range(2):
        model.reset()
        with pytest.raises(DeviceError, match="a loop as a CUDA graph failed: operation not"):
            model.run({"ids": np.array([[5, 6]])}, N=9)
        check(model, [5, 6], 2)  # the first iteration alone
