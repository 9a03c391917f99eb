"""Costs, bounds and lifetimes, against figures computed by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from dfcompiler.analysis.concrete import Shared
from dfcompiler.analysis.cost import FAST_BYTES, measure, op_costs
from dfcompiler.analysis.io_bound import gemm_bound
from dfcompiler.analysis.liveness import aliases, container_lifetimes, value_lifetimes
from dfcompiler.analysis.schedule import DEFAULT_TILE
from dfcompiler.ir import Program, parse, show, verify
from dfcompiler.pipeline import default_probes
from tests.one_state import program_of

MB = 1 << 20


def product(m: int, k: int, n: int) -> Program:
    return program_of(
        f"@y: f32[{m}, {n}] = matmul @x, @w",
        f"input @x: f32[{m}, {k}]\nweight @w: f32[{k}, {n}]\noutput @y: f32[{m}, {n}]",
    )


# -------------------------------------------------------------------------------------------- flops


def test_a_chain_counts_each_operator() -> None:
    program = program_of(
        """
        %0: f32[S, 4] = exp @x
        %1: f32[S, 4] = cast %0 {to = f32}
        %2: f32[4] = reduce_sum %1 {axes = [0]}
        @y: f32[S, 4] = add %0, %2
        """,
        "input @x: f32[S, 4]\noutput @y: f32[S, 4]",
        "S",
    )
    metrics = measure(program, {"S": 10})
    assert metrics.flops == 40 + 0 + 40 + 40
    assert metrics.ops == 4


def test_loops_multiply_and_branches_take_the_dearer_side() -> None:
    program = parse(
        """program p(N) {
  input @x: f32[10]
  input @flag: bool[]
  persist @sum: f32[10]
  output @y: f32[10]
  loop outer for i in 0..N {
    loop inner for j in 0..i {
      state step {
        @sum: f32[10] = add @sum, @x
      }
    }
  }
  branch side if @flag {
    state cheap {
      @y: f32[10] = neg @sum
    }
  } else {
    state dear {
      @y: f32[10] = sigmoid @sum
    }
  }
}"""
    )
    metrics = measure(program, {"N": 5})
    assert metrics.flops == 10 * (0 + 1 + 2 + 3 + 4) + 40
    assert metrics.moved_bytes == 120 * 10 + 80
    costs = {cost.op.kind: cost for cost in op_costs(program, {"N": 5})}
    assert costs["add"].runs == 10
    assert costs["add"].moved_bytes == 1200
    assert (costs["neg"].runs, costs["sigmoid"].runs) == (1, 1)
    assert measure(program, {"N": 1}).flops == 40


def test_extents_that_grow_with_a_loop_are_added_up() -> None:
    program = parse(
        """program p() {
  input @x: f32[8]
  persist @s: f32[]
  loop steps for i in 0..8 {
    state step {
      %0: f32[i + 1] = slice @x {starts = [0]}
      %1: f32[i + 1] = exp %0
      @s: f32[] = reduce_sum %1 {axes = [0]}
    }
  }
}"""
    )
    metrics = measure(program, {})
    assert metrics.flops == 2 * sum(range(1, 9))
    assert metrics.value_bytes == 64, "the slice is a view"
    costs = {cost.op.kind: cost for cost in op_costs(program, {})}
    assert costs["exp"].flops == sum(range(1, 9))
    assert costs["exp"].runs == 8


# -------------------------------------------------------------------------------------- moved bytes


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_fused_chain_reads_and_writes_once(depth: int) -> None:
    n = 1000
    chain = [f"%{i}: f32[{n}] = exp {f'%{i - 1}' if i else '@x'}" for i in range(depth)]
    containers = f"input @x: f32[{n}]\noutput @y: f32[{n}]"
    apart = program_of("\n".join([*chain, f"@y: f32[{n}] = neg %{depth - 1}"]), containers)
    assert measure(apart, {}).moved_bytes == 2 * 4 * n * (depth + 1)
    region = "\n".join([*chain, f"%last: f32[{n}] = neg %{depth - 1}"])
    fused = program_of(
        f'@y: f32[{n}] = fused @x {{kernel = "elementwise"}} do\n{region}\nend', containers
    )
    assert measure(fused, {}).moved_bytes == 2 * 4 * n
    assert measure(fused, {}).flops == measure(apart, {}).flops
    assert measure(fused, {}).io_bound_bytes == measure(apart, {}).io_bound_bytes == 8 * n


def test_an_operand_that_stands_twice_is_read_once() -> None:
    program = program_of("@y: f32[S] = mul @x, @x", "input @x: f32[S]\noutput @y: f32[S]", "S")
    assert measure(program, {"S": 100}).moved_bytes == 800


@pytest.mark.parametrize(
    ("op", "moved"),
    [
        ("%0: f32[4, 100] = reshape @x", 0),
        ("%0: f32[100, 4] = copy @x", 3200),
        ("%0: f32[4, 100] = transpose @x {perm = [1, 0]}", 3200),
        ("%0: f32[10, 4] = slice @x {starts = [5, 0]}", 0),
        ("%0: f32[10, 4] = slice @x {starts = [5, 0], steps = [2, 1]}", 320),
        ("%0: f32[100, 1] = slice @x {starts = [0, 1]}", 800),
        ("%0: f32[7, 4] = gather @x, @i {axis = 0}", 2 * 7 * 16 + 7 * 8),
        ("%0: f32[3, 100, 4] = expand @x", 1600 + 4800),
        ("%0: f32[] = constant {value = 1.0}", 0),
        ("%0: f32[50] = constant {value = 1.0}", 200),
        ("%0: f32[100, 4] = softmax @x {axis = 1}", 3200),
        ("@cache: f32[100, 4] = index_copy @cache, @i, @r {axis = 0}", 2 * 7 * 16 + 7 * 8),
        ("%0: f32[100, 4] = index_copy @cache, @i, @r {axis = 0}", 3200 + 7 * 16 + 7 * 8),
    ],
)  # fmt: skip
def test_data_movement_counts_what_it_touches(op: str, moved: int) -> None:
    program = program_of(
        op,
        """input @x: f32[100, 4]
        input @i: i64[7]
        input @r: f32[7, 4]
        persist @cache: f32[100, 4]""",
    )
    assert measure(program, {}).moved_bytes == moved


def test_long_rows_are_read_twice() -> None:
    containers = "input @x: f32[2, S]\noutput @y: f32[2, S]"
    program = program_of("@y: f32[2, S] = softmax @x {axis = 1}", containers, "S")
    short, long = FAST_BYTES // 8, FAST_BYTES
    assert measure(program, {"S": short}).moved_bytes == 2 * short * 4 * 2
    assert measure(program, {"S": long}).moved_bytes == 3 * long * 4 * 2


def test_a_product_streams_panels_past_blocks_of_rows() -> None:
    m, k, n = 1000, 512, 2048
    blocks = ceil(m / DEFAULT_TILE.mc)
    expected = 4 * (m * k + blocks * k * n + m * n)
    assert measure(product(m, k, n), {}).moved_bytes == expected
    assert DEFAULT_TILE.mc * (k + DEFAULT_TILE.nr) * 4 <= FAST_BYTES
    small = measure(product(100, 64, 64), {})
    assert small.moved_bytes == small.io_bound_bytes == 4 * (100 * 64 + 64 * 64 + 100 * 64)


def test_the_tile_of_a_product_decides_what_is_read_again() -> None:
    m, k, n, mc = 1000, 2048, 512, 60
    plain = show(product(m, k, n))
    for mc, a_reads, b_reads in ((60, 1, 17), (504, 8, 2)):
        tiled = plain.replace("matmul @x, @w", f"matmul @x, @w {{tile = [6, 64, 128, {mc}]}}")
        assert tiled != plain
        expected = 4 * (a_reads * m * k + b_reads * k * n + m * n)
        assert measure(parse(tiled), {}).moved_bytes == expected, mc


def test_padding_of_packed_weights_counts() -> None:
    program = product(4, 8, 100)
    packed = parse(show(program).replace("f32[8, 100]", "f32[8, 100; 1/64 0 1%64]"))
    difference = measure(packed, {}).moved_bytes - measure(program, {}).moved_bytes
    assert difference == 8 * 28 * 4
    assert measure(packed, {}).io_bound_bytes == measure(program, {}).io_bound_bytes


# ------------------------------------------------------------------------------------------- bounds


def test_the_gemm_bound_by_hand() -> None:
    # 1024³ in fp32 with 1 MiB: S = 262144 words, √S = 512.
    m = n = k = 1024
    assert gemm_bound(m, n, k, 1, 32, 32, MB) == 4 * (2 * m * n * k // 512 + m * n)
    compulsory = 4 * (16 * k + k * n + 16 * n)
    assert gemm_bound(16, n, k, 1, 32, 32, MB) < compulsory, "an operand fits"
    eight_bit = gemm_bound(2048, 2048, 2048, 1, 8, 32, MB)
    assert eight_bit == 2 * 2048**3 // 1024 + 2048**2


@pytest.mark.parametrize("m", [1, 64, 1000, 4096])
@pytest.mark.parametrize("fast_bytes", [1 << 14, 1 << 17, MB, 1 << 25])
def test_no_schedule_of_a_product_is_below_its_bound(m: int, fast_bytes: int) -> None:
    (cost,) = op_costs(product(m, 768, 3072), {}, fast_bytes)
    assert cost.io_bound_bytes is not None
    assert cost.io_bound_bytes <= cost.moved_bytes
    compulsory = 4 * (m * 768 + 768 * 3072 + m * 3072)
    assert cost.io_bound_bytes >= compulsory
    if cost.io_bound_bytes > compulsory:
        assert "1908.09606" in cost.theorem or "1702.02017" in cost.theorem


def test_a_bound_counts_what_outputs_depend_on() -> None:
    containers = """input @x: f32[100]
        input @unused: f32[100]
        weight @w: f32[100]
        weight @table: f32[50, 4]
        input @i: i64[3]
        output @y: f32[100]
        output @z: f32[3, 4]"""
    program = program_of(
        """
        %0: f32[10] = slice @w {starts = [0]}
        %1: f32[] = reduce_sum %0 {axes = [0]}
        %2: f32[100] = exp @unused
        @y: f32[100] = mul @x, %1
        @z: f32[3, 4] = gather @table, @i {axis = 0}
        """,
        containers,
    )
    # x whole, ten of w, the indices, and at least one row of the table that they choose from.
    assert measure(program, {}).io_bound_bytes == 400 + 40 + 3 * 8 + 16 + 400 + 48


def test_operators_without_a_proof_have_no_bound() -> None:
    program = program_of(
        "@y: f32[3, 4] = gather @x, @i {axis = 0}",
        "input @x: f32[9, 4]\ninput @i: i64[3]\noutput @y: f32[3, 4]",
    )
    (cost,) = op_costs(program, {})
    assert cost.io_bound_bytes is None
    assert cost.theorem.startswith("unknown")


def test_bounds_under_control_flow_count_only_what_must_run() -> None:
    program = parse(
        """program p(N) {
  input @x: f32[10]
  input @v: f32[10]
  input @flag: bool[]
  temp @t: f32[10]
  output @y: f32[10]
  state start {
    @t: f32[10] = neg @x
  }
  loop again for i in 0..N {
    state step {
      @t: f32[10] = exp @t
    }
  }
  branch side if @flag {
    state yes {
      @t: f32[10] = add @t, @v
    }
  }
  state end {
    @y: f32[10] = copy @t
  }
}"""
    )
    for count in (1, 4):
        metrics = measure(program, {"N": count})
        assert metrics.io_bound_bytes is not None
        # What the branch or an earlier iteration may have overwritten is not counted.
        assert 40 <= metrics.io_bound_bytes <= metrics.moved_bytes


def test_slices_side_by_side_need_different_elements() -> None:
    def bound(second: int) -> int | None:
        body = f"""%0: f32[4, 6] = matmul @x, @w
        %1: f32[4, 3] = slice %0 {{starts = [0, 0]}}
        %2: f32[4, 3] = slice %0 {{starts = [0, {second}]}}
        @y: f32[4, 3] = mul %1, %2"""
        containers = "input @x: f32[4, 5]\nweight @w: f32[5, 6]\noutput @y: f32[4, 3]"
        return measure(program_of(body, containers), {}).io_bound_bytes

    assert bound(3) == 4 * (4 * 5 + 5 * 6 + 4 * 3)
    assert bound(2) == 4 * (4 * 5 + 5 * 5 + 4 * 3), "a column is in both, and one in neither"


def test_a_weight_stored_in_two_layouts_is_loaded_once() -> None:
    containers = """weight @a: f32[4, 4]
        weight @b: f32[4, 4; 1 0]
        output @y: f32[4, 4]"""
    program = program_of("@y: f32[4, 4] = matmul @a, @b", containers)
    values = np.ones((4, 4), np.float32)
    shared = replace(program, data={"a": values, "b": values})
    apart = replace(program, data={"a": values, "b": values.copy()})
    assert measure(shared, {}).io_bound_bytes == 64 + 64
    assert measure(apart, {}).io_bound_bytes == 128 + 64


def test_encodings_lower_the_bound_and_the_traffic() -> None:
    def program(encoding: str) -> Program:
        return parse(
            f"""program p() {{
  input @x: f32[1, 128]
  weight @w: f32[128, 128]{encoding}
  output @y: f32[1, 128]
  state main {{
    @y: f32[1, 128] = matmul @x, @w
  }}
}}"""
        )

    dense, packed = measure(program(""), {}), measure(program(" as affine(4, 0, 32, f16, 0)"), {})
    assert dense.io_bound_bytes is not None
    assert packed.io_bound_bytes is not None
    assert dense.io_bound_bytes - packed.io_bound_bytes == 128 * 128 * 4 - 128 * 128 * 9 // 16
    assert packed.moved_bytes < dense.moved_bytes
    assert packed.weight_bytes == 128 * 128 * 9 // 16


# ----------------------------------------------------------------------------------------- liveness


def test_a_value_lives_from_its_definition_to_its_last_reader() -> None:
    program = program_of(
        """
        %0: f32[4] = exp @x
        %1: f32[2, 2] = reshape %0
        %2: f32[4] = neg @x
        %3: f32[2, 2] = neg %1
        %4: f32[4] = reshape %3
        @y: f32[4] = add %4, %2
        """,
        "input @x: f32[4]\noutput @y: f32[4]",
    )
    found = {life.name: (life.start, life.end) for life in value_lifetimes(program)}
    assert found == {"%0": (0, 3), "%2": (2, 5), "%3": (3, 5)}
    assert aliases(program) == {("main", "%1"): "%0", ("main", "%4"): "%3"}


def test_what_lies_with_strides_is_a_view() -> None:
    program = program_of(
        """
        %0: f32[B, S, 8] = slice @x {starts = [0, 0, 8]}
        %1: f32[B, S, 2, 4] = reshape %0
        %2: f32[B, 2, S, 4; 0 2 1 3] = transpose %1 {perm = [0, 2, 1, 3]}
        %3: f32[B*S, 8] = reshape %0
        %4: f32[B, 8*S] = reshape %0
        %5: f32[B, 1, 8] = slice %0 {starts = [0, S - 1, 0]}
        %6: f32[B, 8] = reshape %5
        %7: f32[B, S, 1] = slice %0 {starts = [0, 0, 3]}
        %8: f32[B, S, 8] = slice @x {starts = [0, 0, 0], steps = [1, 1, 2]}
        %9: f32[B, 2, S, 4] = transpose %1 {perm = [0, 2, 1, 3]}
        @y: f32[B, S, 8] = add %0, %0
        """,
        "input @x: f32[B, S, 24]\noutput @y: f32[B, S, 8]",
        "B, S",
    )
    shared = aliases(program)
    assert {name for _, name in shared} == {"%0", "%1", "%2", "%3", "%5", "%6"}
    assert set(shared.values()) == {"@x"}
    assert [life.name for life in value_lifetimes(program)] == ["%4", "%7", "%8", "%9"]


def test_a_part_of_a_container_is_a_view_after_its_last_write_only() -> None:
    program = program_of(
        """
        %0: f32[4] = slice @kept {starts = [4]}
        @kept: f32[8] = exp @x
        %1: f32[4] = slice @kept {starts = [4]}
        @y: f32[4] = add %0, %1
        """,
        "input @x: f32[8]\npersist @kept: f32[8]\noutput @y: f32[4]",
    )
    assert aliases(program) == {("main", "%1"): "@kept"}


def test_panels_of_one_layer_are_a_view_of_the_panels_of_all() -> None:
    program = program_of(
        """
        %0: f32[1, 6, 70; 0 2/64 1 2%64] = slice @w {starts = [2, 0, 0]}
        %1: f32[6, 70; 1/64 0 1%64] = reshape %0
        %2: f32[1, 3, 70; 0 2/64 1 2%64] = slice @w {starts = [2, 3, 0]}
        %3: f32[1, 6, 64; 0 2/64 1 2%64] = slice @w {starts = [2, 0, 0]}
        @y: f32[2, 70] = matmul @x, %1
        """,
        "input @x: f32[2, 6]\ninput @w: f32[3, 6, 70; 0 2/64 1 2%64]\noutput @y: f32[2, 70]",
    )
    assert {name for _, name in aliases(program)} == {"%0", "%1", "%2"}


def test_temporaries_live_over_the_state_machine() -> None:
    program = verify(
        parse(
            """program p() {
  input @x: f32[4]
  input @flag: bool[]
  temp @carried: f32[4]
  temp @local: f32[4]
  temp @before: f32[4]
  temp @late: f32[4]
  temp @stop: bool[]
  output @y: f32[4]
  state start {
    @before: f32[4] = exp @x
    @carried: f32[4] = neg @x
    @stop: bool[] = constant {value = false}
  }
  loop steps for i in 0..5 until @stop {
    state one {
      @local: f32[4] = add @carried, @before
    }
    state two {
      @carried: f32[4] = exp @local
      @stop: bool[] = constant {value = true}
    }
    state three {
      @late: f32[4] = abs @carried
    }
  }
  branch side if @flag {
    state yes {
      @y: f32[4] = copy @late
    }
  } else {
    state no {
      @y: f32[4] = copy @carried
    }
  }
}"""
        )
    )
    found = {life.name[1:]: (life.start, life.end) for life in container_lifetimes(program)}
    # Operators: 0, 1, 2 | loop 3, 4, 5, 6 | branch 7, 8.
    assert found == {
        "carried": (1, 8),  # read in the loop before it is written there, and after it
        "local": (3, 4),  # written and read within one iteration
        "before": (0, 6),  # read by every iteration: to the end of the loop
        "late": (6, 7),
        "stop": (2, 6),  # read before every iteration
    }


def test_values_of_a_state_in_a_loop_live_in_it() -> None:
    program = parse(
        """program p() {
  persist @s: f32[4]
  loop steps for i in 0..5 {
    state step {
      %0: f32[4] = exp @s
      @s: f32[4] = neg %0
    }
  }
}"""
    )
    (life,) = value_lifetimes(program)
    assert (life.state, life.start, life.end) == ("step", 0, 1)
    assert life.overlaps(replace(life, start=1, end=3))
    assert not life.overlaps(replace(life, start=2, end=3))


# ------------------------------------------------------------------------------------------ sharing


def test_programs_that_share_operators_measure_as_each_does_alone() -> None:
    """Those of all fixtures of passes, before and after each."""
    folder = Path(__file__).parents[1] / "fixtures" / "passes"
    texts = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.ir")))
    programs = [parse(text) for text in re.findall(r"^program .*?^}", texts, re.M | re.S)]
    shared, measured = Shared(), 0
    for program in programs:
        for probe in default_probes(program):
            assert measure(program, probe, shared=shared) == measure(program, probe)
            measured += 1
    assert measured > 200


def test_operands_that_are_the_same_are_another_form() -> None:
    """Square and product differ by a read, though kinds and types agree."""
    square = program_of("@y: f32[64] = mul @a, @a", "input @a: f32[64]\noutput @y: f32[64]")
    two = program_of(
        "@y: f32[64] = mul @a, @b", "input @a: f32[64]\ninput @b: f32[64]\noutput @y: f32[64]"
    )
    shared = Shared()
    assert measure(two, {}, shared=shared).moved_bytes == 3 * 256
    assert measure(square, {}, shared=shared).moved_bytes == 2 * 256
