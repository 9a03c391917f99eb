"""Which elements a program needs: boxes against sets, needs against what changes the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfcompiler.analysis.cost import measure
from dfcompiler.analysis.io_bound.boxes import Box, Region, Span
from dfcompiler.analysis.io_bound.dependence import needs
from dfcompiler.ir import OPERATORS, DType, Op, Program, TensorType, parse
from dfcompiler.ir.stacked import side_by_side, stack
from dfcompiler.pipeline import assemble
from dfcompiler.target import parse_target

Element = tuple[int, ...]


def choices(box: Box) -> Iterator[set[Element]]:
    """The elements of a box for every choice of its unknown indices."""
    options = [[s.indices] if s.every else [[i] for i in s.indices] for s in box]
    for chosen in product(*options):
        yield set(product(*chosen))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start, step = draw(st.integers(0, 4)), draw(st.integers(1, 2))
    indices = range(start, start + step * draw(st.integers(1, 4)), step)
    return Span(indices, len(indices) == 1 or draw(st.booleans()))


@given(st.lists(st.tuples(spans(), spans()), min_size=1, max_size=3))
def test_a_region_counts_no_more_than_any_choice_needs(boxes: list[Box]) -> None:
    unions = [len(set().union(*chosen)) for chosen in product(*map(list, map(choices, boxes)))]
    found = Region(boxes).count()
    assert found <= min(unions)
    if all(along.every for box in boxes for along in box):
        assert found == unions[0]
    assert found == Region(reversed(boxes)).count()


OPERATIONS = {
    "add": "%0: f32[2, 3, 4] = add @x, @row",
    "where": "%0: f32[2, 3, 4] = mul @x, @column",
    "rotary": "%0: f32[2, 3, 4] = rotary @x, @half, @half",
    "expand": "%0: f32[2, 3, 4] = expand @column",
    "merged axes": "%0: f32[6, 4] = reshape @x",
    "split axes": "%0: f32[2, 3, 2, 1, 2] = reshape @x",
    "other axes": "%0: f32[4, 6] = reshape @x",
    "transpose": "%0: f32[4, 2, 3] = transpose @x {perm = [2, 0, 1]}",
    "slice": "%0: f32[1, 3, 2] = slice @x {starts = [1, 0, 3], steps = [1, 1, -2]}",
    "concat": "%0: f32[2, 6, 4] = concat @x, @x2 {axis = 1}",
    "pad": "%0: f32[2, 6, 4] = pad @x {before = [0, 2, 0], after = [0, 1, 0]}",
    "gather": "%0: f32[2, 2, 4] = gather @x, @index {axis = 1}",
    "index_copy": "%0: f32[2, 3, 4] = index_copy @x, @index, @rows {axis = 1}",
    "index_copy a part": "%0: f32[2, 3, 4] = index_copy @x, @index, @part {axis = 0, part = 1}",
    "matmul": "%0: f32[2, 3, 5] = matmul @x, @w",
    "matmul over a batch": "%0: f32[2, 3, 5] = matmul @x, @batched",
    "attention": "%0: f32[1, 4, 2, 3] = attention @q, @k, @v {scale = 1.0, causal = true}",
    "softmax": "%0: f32[2, 3, 4] = softmax @x {axis = 1}",
    "cumsum": "%0: f32[2, 3, 4] = cumsum @x {axis = 1}",
    "layer_norm": "%0: f32[2, 3, 4] = layer_norm @x, @row, @row2 {epsilon = 1e-05}",
    "reduce_sum": "%0: f32[2, 4] = reduce_sum @x {axes = [1]}",
    "reduce_mean": "%0: f32[1, 3, 1] = reduce_mean @x {axes = [0, 2], keepdims = true}",
}
AT_LEAST = ("gather", "rotary", "index_copy", "reshape")
"""Operators of which at least some of what is needed is known, but maybe not all."""
CONTAINERS = """input @x: f32[2, 3, 4]
    input @x2: f32[2, 3, 4]
    input @row: f32[4]
    input @row2: f32[4]
    input @column: f32[3, 1]
    input @half: f32[3, 2]
    input @index: i64[2]
    input @rows: f32[2, 2, 4]
    input @part: f32[2, 4]
    input @w: f32[4, 5]
    input @batched: f32[2, 4, 5]
    input @q: f32[1, 4, 2, 2]
    input @k: f32[1, 2, 3, 2]
    input @v: f32[1, 2, 3, 3]"""


def program_of(body: str, containers: str, data: Mapping[str, np.ndarray] | None = None) -> Program:
    text = f"program p() {{\n{containers}\nstate main {{\n{body}\n}}\n}}"
    return replace(parse(text), data=dict(data or {}))


def influence(op: Op, arrays: Mapping[str, np.ndarray], wanted: set[Element]) -> dict[str, set]:
    """Elements of each input that change an element of the result, by changing each of them."""

    def run(values: Mapping[str, np.ndarray]) -> np.ndarray:
        result = OPERATORS[op.kind].reference(op, [values[name] for name in op.inputs], {})
        return np.array([result[at] for at in sorted(wanted)])

    expected = run(arrays)
    found: dict[str, set] = {}
    for name in {n for n in op.inputs if arrays[n].dtype.kind == "f"}:
        found[name] = set()
        for at in np.ndindex(*arrays[name].shape):
            changed = arrays[name].copy()
            changed[at] += 0.5
            if (run({**arrays, name: changed}) != expected).any():
                found[name].add(at)
    return found


@pytest.mark.parametrize("kind", OPERATIONS)
@given(data=st.data())
def test_what_is_needed_changes_the_result(kind: str, data: st.DataObject) -> None:
    program = program_of(OPERATIONS[kind], CONTAINERS)
    (op,) = program.ops()
    types = {f"@{c.name}": c.type for c in program.containers}
    rng = np.random.default_rng(0)
    arrays = {n: rng.uniform(0.5, 1.5, t.shape) for n, t in types.items()}
    arrays["@index"] = np.array([2, 0]) if kind != "index_copy a part" else np.array([1, 0])
    axes = []
    for extent in op.type.shape:
        start = data.draw(st.integers(0, extent - 1))
        step = data.draw(st.integers(1, 2))
        axes.append(Span(range(start, data.draw(st.integers(start + 1, extent)), step)))
    box = tuple(axes)
    found = needs(op, tuple(types[name] for name in op.inputs), Region([box]))
    changing = influence(op, arrays, set(product(*(s.indices for s in box))))
    for name, elements in changing.items():
        known: set[Element] = set()
        for needed in found[name].boxes if name in found else ():
            assert any(chosen <= elements for chosen in choices(needed)), (name, needed)
            known |= next(choices(needed)) if all(s.every for s in needed) else set()
        if op.kind not in AT_LEAST:
            assert known == elements, name


@given(st.integers(0, 23), st.integers(1, 24))
def test_a_stretch_of_elements_is_followed_through_a_reshape(start: int, count: int) -> None:
    (op,) = program_of("%0: f32[24] = reshape @x", CONTAINERS).ops()
    stretch = range(start, min(24, start + count))
    x = TensorType(DType.F32, (2, 3, 4))
    found = needs(op, (x,), Region([(Span(stretch),)]))["@x"]
    elements = set().union(*(next(choices(box)) for box in found.boxes))
    assert elements == {np.unravel_index(i, (2, 3, 4)) for i in stretch}


# ----------------------------------------------------------------------------------- whole programs


def bound(program: Program) -> int | None:
    return measure(program, {}).io_bound_bytes


def test_keys_that_go_into_a_cache_need_their_whole_weight() -> None:
    """Which row stays is not known, but every row takes the weight and a row of the activation."""
    containers = """input @x: f32[3, 8]
        weight @w: f32[8, 4]
        input @at: i64[3]
        persist @cache: f32[10, 4]"""
    body = """%0: f32[3, 4] = matmul @x, @w
        @cache: f32[10, 4] = index_copy @cache, @at, %0 {axis = 0}"""
    assert bound(program_of(body, containers)) == 4 * (8 + 8 * 4) + 3 * 8


def test_rows_that_are_written_to_known_places_are_needed_whole() -> None:
    containers = """input @x: f32[3, 8]
        input @old: f32[6, 8]
        output @y: f32[6, 8]"""
    body = """%0: i64[3] = iota {start = 2}
        @y: f32[6, 8] = index_copy @old, %0, @x {axis = 0}"""
    assert bound(program_of(body, containers)) == 4 * 8 * (3 + 3 + 6)


def merged(program: Program) -> Program:
    pipeline = assemble(["merge-products"], parse_target("cpu:x86-64-v4"))
    return pipeline.run(program).program


def test_a_merged_product_of_which_a_part_is_needed_has_the_same_bound() -> None:
    """Queries whole, keys and values into a cache: three rows of each weight's columns or one."""
    containers = """input @x: f32[3, 8]
        weight @q: f32[8, 6]
        weight @k: f32[8, 4]
        weight @unused: f32[8, 2]
        input @at: i64[3]
        persist @cache: f32[10, 4]
        output @y: f32[3, 6]
        output @z: f32[1, 1]"""
    body = """%0: f32[3, 6] = matmul @x, @q
        %1: f32[3, 4] = matmul @x, @k
        %2: f32[3, 2] = matmul @x, @unused
        @y: f32[3, 6] = exp %0
        @cache: f32[10, 4] = index_copy @cache, @at, %1 {axis = 0}
        %3: f32[1, 1] = slice %2 {starts = [2, 0]}
        @z: f32[1, 1] = copy %3"""
    weights = {"q": (8, 6), "k": (8, 4), "unused": (8, 2)}
    data = {name: np.ones(shape, np.float32) for name, shape in weights.items()}
    program = program_of(body, containers, data)
    after = merged(program)
    assert sum(op.kind == "matmul" for op in after.ops()) == 1
    # x, all of q and k, a column of the third weight; the indices; both outputs.
    assert bound(program) == 4 * (24 + 48 + 32 + 8) + 3 * 8 + 4 * (18 + 1)
    assert bound(after) == bound(program)


def test_a_bias_that_several_products_add_is_one_array_however_often_it_is_stored() -> None:
    containers = """input @x: f32[3, 8]
        weight @q: f32[8, 4]
        weight @k: f32[8, 4]
        weight @o: f32[4, 4]
        weight @b: f32[4]
        output @y: f32[3, 4]"""

    def linear(result: str, x: str, w: str) -> str:
        return f"""{result}: f32[3, 4] = fused {x}, {w}, @b {{kernel = "linear"}} do
            %.0: f32[3, 4] = matmul {x}, {w}
            {result}: f32[3, 4] = add %.0, @b
        end"""

    products = [linear("%0", "@x", "@q"), linear("%1", "@x", "@k"), linear("@y", "%2", "@o")]
    body = "\n".join((*products[:2], "%2: f32[3, 4] = mul %0, %1", products[2]))
    shapes = {"q": (8, 4), "k": (8, 4), "o": (4, 4), "b": (4,)}
    data = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    before = program_of(body, containers, data)
    after = merged(before)
    assert bound(after) == bound(before) == 4 * (24 + 32 + 32 + 16 + 4 + 12)
    # Stored for each product that was merged, and for the one that was not.
    weights = [measure(program, {}).weight_bytes for program in (before, after)]
    assert weights == [4 * (32 + 32 + 16 + 4), 4 * (32 + 32 + 16 + 3 * 4)]


def test_a_loop_over_stacked_weights_needs_them_all() -> None:
    layers = [np.full((4, 4), float(i), np.float32) for i in range(3)]
    body = """loop layers for layer in 0..3 {
        state body {
          %0: f32[1, 4, 4] = slice @w {starts = [layer, 0, 0]}
          %1: f32[4, 4] = reshape %0
          @t: f32[2, 4] = matmul @t, %1
        }
      }"""
    text = f"""program p() {{
      input @x: f32[2, 4]
      weight @w: f32[3, 4, 4]
      weight @first: f32[4, 4]
      temp @t: f32[2, 4]
      output @y: f32[2, 4]
      state before {{ @t: f32[2, 4] = matmul @x, @first }}
      {body}
      state after {{ @y: f32[2, 4] = exp @t }}
    }}"""
    text = text.replace("{ @", "{\n@").replace(" }\n", "\n}\n")
    first = np.ones((4, 4), np.float32)
    apart = replace(parse(text), data={"w": stack(layers), "first": first})
    assert bound(apart) == 4 * (8 + 3 * 16 + 16 + 8)
    shared = replace(apart, data={"w": stack([first, *layers[1:]]), "first": first})
    assert bound(shared) == 4 * (8 + 3 * 16 + 8), "the first layer has the weight in front of it"
    halves = side_by_side([np.ones((4, 2), np.float32)] * 2)
    halved = replace(apart, data={"w": stack([halves, *layers[1:]]), "first": first})
    assert bound(halved) == 4 * (8 + 8 + 2 * 16 + 16 + 8)


def test_a_loop_that_a_flag_may_end_needs_the_flag() -> None:
    text = """program p() {
  input @x: f32[8]
  input @limit: f32[]
  temp @stop: bool[]
  temp @sum: f32[]
  output @y: f32[]
  state start {
    @sum: f32[] = constant {value = 0.0}
    @stop: bool[] = less @limit, @sum
  }
  loop again for i in 0..8 until @stop {
    state step {
      %0: f32[1] = slice @x {starts = [i]}
      %1: f32[] = reshape %0
      @sum: f32[] = add @sum, %1
      @stop: bool[] = less @limit, @sum
    }
  }
  state end {
    @y: f32[] = copy @sum
  }
}"""
    # The limit and the result; whether the elements are read depends on them.
    assert bound(parse(text)) == 4 + 4
