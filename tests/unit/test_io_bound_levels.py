"""Lower bounds at every level of a machine's memory, and their table."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from dfcompiler.analysis.io_bound.levels import kernel_bounds, levels_of
from dfcompiler.analysis.machine import Machine
from dfcompiler.ir import parse
from dfcompiler.report.bounds import bound_rows, bound_table
from dfcompiler.target import parse_target
from tests.one_state import program_of


def test_every_level_has_its_own_bound() -> None:
    target = parse_target("cpu:x86-64-v4")
    machine = Machine.nominal(target, threads=1)
    levels = levels_of(target, machine)
    assert [level.name for level in levels] == ["registers", "L1", "L2", "L3"]
    assert levels[0].fast_bytes == 32 * 64
    program = program_of(
        """@y: f32[2048, 2048] = matmul @x, @w
        @z: f32[2048, 2048] = exp @y
        %0: f32[2048, 1, 2048] = reshape @z""",
        """input @x: f32[2048, 2048]
        weight @w: f32[2048, 2048]
        output @y: f32[2048, 2048]
        output @z: f32[2048, 2048]""",
    )
    product, chain = kernel_bounds(program, {}, levels, machine)
    assert product.volume == 2048**3
    assert product.compulsory_bytes == 3 * 4 * 2048**2
    assert product.levels[0].best_block == (22, 22)
    bounds = [level.bound_bytes for level in product.levels]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 4 * (int(2 * 2048**3 / 512**0.5) + 2048**2)
    assert all(level.ratio is not None and level.ratio >= 1 for level in product.levels)
    assert product.binding == "arithmetic"
    assert product.least_s == 2 * 2048**3 / machine.tile_flops
    assert chain.binding == "L3"
    assert chain.least_s == 2 * 4 * 2048**2 / machine.memory_rate


def test_the_table_of_bounds_shows_one_line_for_equal_kernels() -> None:
    target = parse_target("cpu:x86-64-v3")
    machine = Machine.nominal(target)
    program = parse(
        """program p() {
  weight @t: f32[50, 8]
  input @i: i64[3]
  input @w: f32[8, 8]
  persist @h: f32[3, 8]
  loop layers for l in 0..4 {
    state one {
      %0: f32[3, 8] = matmul @h, @w
      @h: f32[3, 8] = matmul %0, @w
    }
  }
  state last {
    @h: f32[3, 8] = gather @t, @i {axis = 0}
  }
}"""
    )
    found = bound_rows(kernel_bounds(program, {}, levels_of(target, machine), machine))
    assert [row["runs"] for row in found] == [4, 4, 1]
    assert found[2]["compulsory_bytes"] is None
    console = Console(width=200, record=True, file=StringIO())
    console.print(bound_table(found, {}))
    text = console.export_text()
    assert text.count("matmul f32[3, 8]") == 1
    assert "unknown" in text
    assert "arithmetic" in text or "registers" in text
