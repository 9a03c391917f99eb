"""The pipelines of GPU targets: which passes they have, and what is refused."""

from __future__ import annotations

import pytest

from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.transactions import Memory
from dfcompiler.api.options import Options
from dfcompiler.errors import UnsupportedError, UsageError
from dfcompiler.ir import parse
from dfcompiler.pipeline import assemble, discover
from dfcompiler.target import parse_target
from passes.pipelines import PIPELINES, named

GPU = parse_target("cuda:sm_90")
CPU = parse_target("cpu:x86-64-v4")
HEADS = """
program heads(S) {
  input  @x: f32[2, S, 3, 64]
  output @y: f32[2, S, 192]
  state main {
    %0: f32[2, 3, S, 64] = transpose @x {perm = [0, 2, 1, 3]}
    %1: f32[2, 3, S, 64] = attention %0, %0, %0 {scale = 0.125}
    %2: f32[2, S, 3, 64] = transpose %1 {perm = [0, 2, 1, 3]}
    @y: f32[2, S, 192] = reshape %2
  }
}
"""


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pipelines_of_gpus_leave_out_what_is_for_cpus(pipeline: str) -> None:
    found = [one.name for one in named(pipeline, GPU).passes]
    assert set(found) == {n for n in PIPELINES[pipeline] if "cuda" in discover()[n].runs_on}
    assert {"fuse-epilogue", "fuse-rows", "select-layout", "plan-buffers"} <= set(found)
    assert "tile-for-io" in found
    assert not {"pack-weights", "pad-rows"} & set(found)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_values_are_narrowed_before_they_are_fused(precision: str) -> None:
    found = [one.name for one in named("default", GPU, precision).passes]
    assert found.index("narrow-values") == found.index("fuse-epilogue") - 1
    assert "lower-precision" not in found


def test_a_pass_for_cpus_is_refused_for_a_gpu() -> None:
    with pytest.raises(UsageError, match="pad-rows is not for cuda:sm_90, only for cpu targets"):
        assemble(["pad-rows"], GPU)


def test_f16_is_refused_for_cpus() -> None:
    with pytest.raises(UnsupportedError, match="precision f16 is for GPUs"):
        named("default", CPU, "f16")


@pytest.mark.parametrize(
    ("target", "expansions", "said"),
    [
        ("cuda:sm_90", {"matmul": "magic"}, "no expansion magic on cuda:sm_90; expected one of cu"),
        ("cuda:sm_90", {"softmax": "pure"}, "softmax has no expansions on cuda:sm_90; expected on"),
        ("cpu:x86-64-v4", {"matmul": "wgmma"}, "on cpu:x86-64-v4; expected one of native, pure"),
    ],
)
def test_expansions_that_a_target_does_not_have(
    target: str, expansions: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Options(target=target, expansions=expansions).check()


def test_the_expansions_of_a_target() -> None:
    Options(target="cuda:sm_90", expansions={"matmul": "wgmma", "attention": "native"}).check()
    Options(target="cpu:x86-64-v4", expansions={"matmul": "pure"}).check()


def test_transposes_around_attention_are_views_on_a_gpu() -> None:
    program = named("default", GPU).run(parse(HEADS)).program
    transposes = [op for op in program.ops() if op.kind == "transpose"]
    assert transposes
    assert all(op.attr("alias", False) for op in transposes)


def test_a_gpu_moves_sectors() -> None:
    memory = Memory.nominal(Machine.nominal(GPU))
    assert memory.line_bytes == 32
    # Enough sectors are on their way to keep the memory busy.
    assert memory.concurrency * memory.line_bytes / memory.latency_s >= memory.bandwidth
