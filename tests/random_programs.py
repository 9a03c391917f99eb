"""Hypothesis strategies for valid programs over a symbol, with values that stay of order one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from dfcompiler.ir import (
    Container,
    DType,
    Loop,
    Program,
    Role,
    State,
    Symbol,
    TensorType,
    show,
    verify,
)
from dfcompiler.ir.dims import symbol
from dfcompiler.ir.rewrite import Builder
from tests.programs import with_random_weights

S = symbol("S")
F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL

CONTAINERS = (
    Container(Role.INPUT, "x", TensorType(F32, (S, 4))),
    Container(Role.INPUT, "row", TensorType(F32, (4,))),
    Container(Role.INPUT, "column", TensorType(F32, (S, 1))),
    Container(Role.INPUT, "ids", TensorType(I64, (S,))),
    Container(Role.INPUT, "mask", TensorType(BOOL, (S, 1))),
    Container(Role.WEIGHT, "w", TensorType(F32, (4, 4))),
    Container(Role.WEIGHT, "b", TensorType(F32, (4,))),
    Container(Role.WEIGHT, "table", TensorType(F32, (5, 4))),
    Container(Role.PERSIST, "state", TensorType(F32, (3, 4))),
)

FLOAT_UNARY = ("neg", "neg", "tanh", "sigmoid", "sin", "cos", "relu", "gelu", "silu", "erf", "sign")
FLOAT_BINARY = ("add", "sub", "mul", "min", "max")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0)

Step = Callable[[Builder, Callable[..., str], Any], str]


def _constant(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    dtype = draw(st.sampled_from((F32, I64, BOOL)))
    shape = draw(st.sampled_from(((), (4,), (S, 1), (S, 4))))
    values = {F32: st.sampled_from(NUMBERS), I64: st.integers(0, 2), BOOL: st.booleans()}
    return build.constant(draw(values[dtype]), TensorType(dtype, shape))


def _float_unary(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    return build.op(draw(st.sampled_from(FLOAT_UNARY)), (pick(F32),))


def _float_binary(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    found = build.op(draw(st.sampled_from(FLOAT_BINARY)), (pick(F32), pick(F32)))
    return build.op("tanh", (found,)) if draw(st.booleans()) else found


def _by_number(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    kind, value = draw(
        st.sampled_from((("mul", 0.5), ("div", 2.0), ("div", 3.0), ("pow", 2.0), ("pow", 1.0)))
    )
    return build.op(kind, (build.op("tanh", (pick(F32),)), build.constant(value, TensorType(F32))))


def _compare(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    dtype = draw(st.sampled_from((F32, I64)))
    return build.op(draw(st.sampled_from(COMPARISONS)), (pick(dtype), pick(dtype)))


def _logic(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    if draw(st.booleans()):
        return build.op("not", (pick(BOOL),))
    return build.op(draw(st.sampled_from(("and", "or", "xor"))), (pick(BOOL), pick(BOOL)))


def _where(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    return build.op("where", (pick(BOOL), pick(F32), pick(F32)))


def _cast(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    source = draw(st.sampled_from((F32, I64, BOOL)))
    target = draw(st.sampled_from((F32, I64, DType.I32, BOOL, DType.F64)))
    value = build.op("cast", (pick(source),), {"to": target})
    known = target in (F32, I64, BOOL)
    return value if known else build.op("cast", (value,), {"to": source})


def _integers(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    match draw(st.integers(0, 3)):
        case 0:
            attrs = {"start": draw(st.integers(0, 1))}
            return build.op("iota", (), attrs, type=TensorType(I64, (S,)))
        case 1:
            return build.op("dim", (), {"value": S + 1}, type=TensorType(I64))
        case _:
            return build.op(draw(st.sampled_from(("add", "sub"))), (pick(I64), pick(I64)))


def _reshape(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(draw(st.sampled_from((F32, I64, BOOL))))
    shape = build.types[name].shape
    shapes = [(1, *shape), (*shape, 1), shape]
    if shape and shape[-1] == 4:
        shapes += [(*shape[:-1], 2, 2), (*shape[:-2], shape[-2] * 4) if len(shape) > 1 else (2, 2)]
    if len(shape) > 1 and shape[0] == 1:
        shapes.append(shape[1:])
    return build.op(
        "reshape", (name,), type=build.types[name].with_shape(draw(st.sampled_from(shapes)))
    )


def _expand(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(draw(st.sampled_from((F32, I64, BOOL))))
    shape = build.types[name].shape
    wider = tuple(3 if dim == 1 else dim for dim in shape)
    found = draw(st.sampled_from([(2, *shape), wider, shape]))
    return build.op("expand", (name,), type=build.types[name].with_shape(found))


def _transpose(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(draw(st.sampled_from((F32, BOOL))))
    axes = draw(st.permutations(range(build.types[name].rank)))
    return build.op("transpose", (name,), {"perm": tuple(axes)})


def _slice(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(draw(st.sampled_from((F32, I64))))
    shape = build.types[name].shape
    starts, sizes, steps = [], [], []
    for dim in shape:
        whole = not isinstance(dim, int) or dim < 2 or draw(st.booleans())
        start = 0 if whole else draw(st.integers(0, dim - 1))
        size = dim if whole else draw(st.integers(1, dim - start))
        step = 1 if whole or size != 1 else draw(st.integers(1, 2))
        if not whole and start == dim - 1 and size == 1 and draw(st.booleans()):
            size, step = dim, -1
        starts, sizes, steps = [*starts, start], [*sizes, size], [*steps, step]
    attrs: Mapping[str, Any] = {"starts": tuple(starts), "steps": tuple(steps)}
    return build.op("slice", (name,), attrs, type=build.types[name].with_shape(tuple(sizes)))


def _concat(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    names = [pick(F32) for _ in range(draw(st.integers(1, 3)))]
    return build.op("concat", names, {"axis": draw(st.integers(-1, 1))})


def _gather(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    index = draw(st.sampled_from(("@ids", "constant", "iota")))
    if index == "constant":
        index = build.constant(draw(st.integers(-1, 4)), TensorType(I64, (S,)))
    elif index == "iota":
        index = build.op("iota", (), type=TensorType(I64, (3,)))
    return build.op("gather", ("@table", index), {"axis": 0})


def _root(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    one = build.constant(1.0, TensorType(F32))
    positive = build.op("add", (build.op("abs", (pick(F32),)), one))
    root = build.op("sqrt", (positive,))
    return build.op("div", (one, root)) if draw(st.booleans()) else root


def _pad(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(F32)
    width = draw(st.integers(0, 1))
    rank = build.types[name].rank
    return build.op("pad", (name,), {"before": (0,) * rank, "after": (width,) * rank})


def _matmul(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    right = draw(st.sampled_from(("@w", "any")))
    product = build.op("matmul", (pick(F32), right if right == "@w" else pick(F32)))
    return build.op("tanh", (product,)) if draw(st.booleans()) else product


def _normalize(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    name = pick(F32)
    if draw(st.booleans()):
        return build.op("softmax", (name,), {"axis": -1})
    return build.op("layer_norm", (name, "@b"), {"epsilon": 0.01})


def _reduce(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    kind = draw(st.sampled_from(("reduce_mean", "reduce_max", "reduce_min")))
    attrs = {"axes": (draw(st.integers(-2, 1)),), "keepdims": draw(st.booleans())}
    return build.op(kind, (pick(F32),), attrs)


def _write_state(build: Builder, pick: Callable[..., str], draw: Any) -> str:
    fitting = [n for n, t in build.types.items() if t == TensorType(F32, (3, 4)) and n[0] == "%"]
    if not fitting:
        raise ValueError("nothing fits the state")
    return build.op("copy", (draw(st.sampled_from(fitting)),), result="@state")


STEPS: tuple[Step, ...] = (
    *(_constant, _float_unary, _float_binary, _float_binary, _by_number, _compare, _logic),
    *(_where, _cast, _integers, _reshape, _expand, _transpose, _slice, _concat, _gather),
    *(_matmul, _normalize, _reduce, _root, _pad, _write_state),
)


class Drawn:
    """A program that a failing test shows as text."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __repr__(self) -> str:
        return f"\n{show(self.program)}"


@st.composite
def programs(draw: Any) -> Drawn:
    """A program of up to two states, the second maybe in a loop, that writes one to three outputs.

    Sizes that grow without end are avoided by taking only values of up to 4 axes.
    """
    containers = list(CONTAINERS)
    blocks: list[Any] = []
    for number in range(draw(st.integers(1, 2))):
        build = _state(draw)
        names = [op.result for op in build.ops if op.result.startswith("%")]
        for i in range(draw(st.integers(1, 2))):
            value = draw(st.sampled_from(names or ["@x"]))
            output = Container(Role.OUTPUT, f"y{number}{i}", build.types[value])
            build.op("copy", (value,), result=f"@{output.name}")
            containers.append(output)
        state = State(f"state{number}", tuple(build.ops))
        looped = number == 1 and draw(st.booleans())
        blocks.append(Loop("again", "i", 0, 2, (state,)) if looped else state)
    program = Program("random", (Symbol("S", 6),), tuple(containers), tuple(blocks))
    return Drawn(with_random_weights(verify(program)))


def _state(draw: Any) -> Builder:
    build = Builder({f"@{c.name}": c.type for c in CONTAINERS})

    def pick(dtype: DType) -> str:
        fitting = [n for n, t in build.types.items() if t.dtype is dtype and t.rank <= 4]
        # Mostly the newest: long chains are where rules meet.
        recent = fitting[-2:] if draw(st.integers(0, 3)) else fitting
        return str(draw(st.sampled_from(recent)))

    for _ in range(draw(st.integers(1, 16))):
        step = draw(st.sampled_from(STEPS))
        kept = len(build.ops)
        try:
            step(build, pick, draw)
        except ValueError:  # these types do not fit together
            for op in build.ops[kept:]:
                build.types.pop(op.result, None)
            del build.ops[kept:]
            build.types |= {f"@{c.name}": c.type for c in CONTAINERS}
    return build
