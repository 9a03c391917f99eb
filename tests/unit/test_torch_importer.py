"""Import from torch: whole models at several shapes, and ATen operators one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dfcompiler.importers.torch_export import import_exported, import_module
from dfcompiler.importers.torch_export.mutation import write_buffers
from dfcompiler.ir import DType, Op, Program, Role, TensorType, interpret, parse, show
from models import bert, gpt2, llama, qwen3, vit
from tests.tolerances import assert_close

MODELS = {"bert": bert, "gpt2": gpt2, "llama": llama, "qwen3": qwen3, "vit": vit}
SHAPES = [{"batch": 2, "sequence": 7}, {"batch": 1, "sequence": 3}, {"batch": 3, "sequence": 20}]


def arrays(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def assert_same_as_torch(
    program: Program, module: nn.Module, inputs: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        expected = module(**inputs)
    actual = interpret(program, arrays(inputs))
    assert actual
    for name, array in actual.items():
        assert_close(array, expected[name].numpy(), name)


@cache
def model(name: str, attention: str) -> tuple[ModuleType, nn.Module, torch.export.ExportedProgram]:
    source = MODELS[name]
    module = source.build()
    module.set_attn_implementation(attention)
    shapes = source.dynamic_shapes()
    exported = torch.export.export(module, (), source.example_inputs(), dynamic_shapes=shapes)
    return source, module, exported


# torch 2.13 itself cannot decompose GPT-2 with sdpa: it views a tensor across its strides
DECOMPOSED = {(name, "eager" if name == "gpt2" else "sdpa") for name in MODELS}
CASES = [
    (name, attention, decomposed)
    for name in MODELS
    for attention in ("sdpa", "eager")
    for decomposed in (False, True)
    if not decomposed or (name, attention) in DECOMPOSED
]


@pytest.mark.parametrize(("name", "attention", "decomposed"), CASES)
def test_one_program_for_all_shapes(name: str, attention: str, decomposed: bool) -> None:
    source, module, exported = model(name, attention)
    program = import_exported(exported.run_decompositions() if decomposed else exported)
    assert parse(show(program)) == program
    for sizes in SHAPES:
        given = {"batch": sizes["batch"]} if name == "vit" else sizes
        assert_same_as_torch(program, module, source.example_inputs(**given))


def test_names_come_from_the_model() -> None:
    program = import_exported(model("bert", "sdpa")[2], "bert")
    assert program.name == "bert"
    assert [(s.name, s.maximum) for s in program.symbols] == [("batch", None), ("sequence", 64)]
    names = [container.name for container in program.inputs]
    assert names == ["input_ids", "attention_mask", "token_type_ids"]
    assert [container.name for container in program.outputs] == ["last_hidden_state"]
    assert "encoder.layer.0.attention.self.query.weight" in program.table()
    sources = {op.source for op in program.ops() if op.kind == "layer_norm"}
    assert any(source.startswith("encoder.layer.1.output.LayerNorm/") for source in sources)


def test_weights_are_not_copied() -> None:
    module = bert.build()
    program = import_module(module, bert.example_inputs(), bert.dynamic_shapes())
    parameters = dict(module.named_parameters())
    for name, array in program.data.items():
        if name in parameters:
            assert np.shares_memory(array, parameters[name].detach().numpy())
    assert len(program.data) > 30


def test_tied_weights_share_a_container() -> None:
    program = import_exported(model("gpt2", "sdpa")[2])
    vocabulary = [c.name for c in program.weights if c.type.shape == (101, 32)]
    assert len(vocabulary) == 1


def test_importers_do_not_import_torch() -> None:
    code = "import sys, dfcompiler.importers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Apply(nn.Module):
    """A function as a module, so that it can be exported."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def check(
    function: Callable[..., Any],
    *inputs: torch.Tensor,
    dynamic: Any = None,
    decompose: bool = True,
) -> Program:
    """Imports `function`, undecomposed and decomposed, and compares it with torch."""
    module = Apply(function).eval()
    with torch.no_grad():
        expected = function(*inputs)
    expected = list(expected) if isinstance(expected, tuple | list) else [expected]
    shapes = None if dynamic is None else {"inputs": dynamic}
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes)
    programs = [import_exported(exported)]
    if decompose:
        programs.append(import_exported(exported.run_decompositions()))
    for program in programs:
        names = [container.name for container in program.inputs]
        given = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
        actual = list(interpret(program, given).values())
        assert len(actual) == len(expected)
        for found, wanted in zip(actual, expected, strict=True):
            assert_close(found, wanted.numpy())
    return programs[0]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y = random(2, 3, 4), random(2, 3, 4, seed=1)
POSITIVE = X.abs() + 0.1
I, J = torch.arange(-6, 6).reshape(3, 4), torch.tensor([[2], [-3], [5]])
B = X > 0


@pytest.mark.parametrize(
    "function",
    [
        *(torch.neg, torch.abs, torch.sign, torch.relu, torch.exp, torch.sin, torch.cos),
        *(torch.tanh, torch.erf, torch.sigmoid, functional.silu, torch.floor, torch.ceil),
        *(torch.round, torch.isnan, torch.isinf, torch.logical_not, functional.gelu),
        *(torch.square, functional.relu6, functional.leaky_relu, functional.hardtanh),
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda x: x.clamp(-0.5, 0.5),
        lambda x: x.clamp(min=0.1),
        lambda x: x.clamp(max=0.1),
        lambda x: x**3,
        lambda x: 2.0**x,
        lambda x: torch.rsub(x, 1.0, alpha=2.0),
        lambda x: torch.add(x, x, alpha=3),
        lambda x: torch.addcmul(x, x, x + 1, value=0.5),
        lambda x: x.masked_fill(x > 0, -1.0),
        lambda x: torch.where(x > 0, x, 0.5),
        lambda x: x.to(torch.float64),
        lambda x: (x * 3).to(torch.int32),
        lambda x: functional.dropout(x, 0.5, training=False),
    ],
)
def test_elementwise_of_floats(function: Callable[..., Any]) -> None:
    check(function, X, decompose=False)


@pytest.mark.parametrize(
    "function", [torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.log1p]
)
def test_elementwise_of_positive_floats(function: Callable[..., Any]) -> None:
    check(function, POSITIVE, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        *(torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum),
        *(torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge, torch.remainder, torch.fmod),
        lambda x, y: torch.div(x, y, rounding_mode="floor"),
        lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    ],
)
@pytest.mark.parametrize("operands", [(X, Y), (I, J), (I, X[0, :, :]), (X, torch.tensor(3))])
def test_binary_promotes_like_torch(function: Callable[..., Any], operands: Any) -> None:
    check(function, *operands, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: x + 1.5,
        lambda x: x / 2,
        lambda x: x // 2,
        lambda x: x % 3,
        lambda x: x > 0.5,
        lambda x: x == 2,
        lambda x: torch.sigmoid(x),
        lambda x: x.sum(),
        lambda x: x.to(torch.int8) + 100,
        lambda x: x * torch.tensor(2.5),
        lambda x: (x > 0) & (x < 4) | (x == -6),
        lambda x: ~(x > 0) ^ (x == 1),
        lambda x: (x > 0) + 1,
        lambda x: torch.logical_and(x, x - 1),
        lambda x: x.to(torch.bool),
        lambda x: torch.where(x > 0, x, 0.5),
    ],
)
def test_integers_promote_like_torch(function: Callable[..., Any]) -> None:
    check(function, I, decompose=False)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(),
        lambda x: x.sum(-1),
        lambda x: x.mean((0, 2), keepdim=True),
        lambda x: x.mean(),
        lambda x: x.amax(1),
        lambda x: x.amin((0, 1), keepdim=True),
        lambda x: x.max(),
        lambda x: torch.max(x, -1),
        lambda x: torch.max(x, x * 2),
        lambda x: x.argmax(-1),
        lambda x: x.argmax(),
        lambda x: x.argmax(1, keepdim=True),
        lambda x: x.prod(1),
        lambda x: x.cumsum(1),
        lambda x: (x > 0).any(-1),
        lambda x: (x > 0).all(),
        lambda x: (x > 0).sum(1),
        lambda x: x.var(-1),
        lambda x: x.var(-1, unbiased=False, keepdim=True),
        lambda x: x.std((1, 2), correction=2),
        lambda x: torch.var_mean(x, -1, correction=0, keepdim=True),
        lambda x: x.norm(dim=-1),
        lambda x: torch.linalg.vector_norm(x, 1, dim=1, keepdim=True),
        lambda x: x.softmax(1),
        lambda x: x.log_softmax(-1),
        lambda x: x.softmax(-1, dtype=torch.float64),
        lambda x: functional.layer_norm(x, (4,)),
        lambda x: functional.layer_norm(x, (3, 4), x[0], x[1], 1e-3),
        lambda x: functional.layer_norm(x, (4,), None, x[0, 0]),
        lambda x: functional.rms_norm(x, (4,), x[0, 0], 1e-6),
        lambda x: functional.rms_norm(x, (4,)),
    ],
)
def test_reductions_and_normalizations(function: Callable[..., Any]) -> None:
    check(function, X)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(6, -1),
        lambda x: x.flatten(1),
        lambda x: x.unflatten(2, (2, 2)),
        lambda x: x.permute(2, 0, 1),
        lambda x: x.transpose(0, -1),
        lambda x: x[0].t(),
        lambda x: x.mT,
        lambda x: x.unsqueeze(-1).expand(2, 3, 4, 5),
        lambda x: x[:1].squeeze(0),
        lambda x: x[:, 1:, ::2],
        lambda x: x[:, -2:],
        lambda x: x[..., 3:9],
        lambda x: x[:, -1],
        lambda x: x.narrow(2, 1, 2),
        lambda x: x.split(2, dim=2),
        lambda x: x.split([1, 3], dim=-1),
        lambda x: x.chunk(2, dim=1),
        lambda x: x.unbind(1),
        lambda x: torch.cat([x, x * 2], 1),
        lambda x: torch.cat([x, x.to(torch.float64)], -1),
        lambda x: torch.stack([x, -x], 2),
        lambda x: torch.stack([x, -x], -1),
        lambda x: x.repeat(2, 1, 3),
        lambda x: x[0].repeat(2, 1, 3),
        lambda x: x.repeat_interleave(3, dim=1),
        lambda x: functional.pad(x, (1, 2, 0, 3), value=0.5),
        lambda x: x.flip(1),
        lambda x: x.roll((1, -1), (1, 2)),
        lambda x: x.tril(),
        lambda x: x.triu(1),
        lambda x: (x > 0).tril(-1),
        lambda x: (x.clone(), x.contiguous().detach()),
        lambda x: x.new_zeros(2, 3) + 1,
        lambda x: torch.full_like(x, 3),
        lambda x: torch.ones(3, dtype=torch.bool),
        lambda x: torch.arange(5) + torch.arange(1, 11, 2),
        lambda x: torch.arange(3.0),
    ],
)
def test_movement_and_creation(function: Callable[..., Any]) -> None:
    check(function, X)


INDEX = torch.tensor([2, 0, 1, -1])


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x[:, i],
        lambda x, i: x.index_select(1, i.abs()),
        lambda x, i: functional.embedding(i.abs(), x[0]),
        lambda x, i: x[i % 2, i],
        lambda x, i: x[i % 2, :, i],
        lambda x, i: x[:, i[:, None], i],
        lambda x, i: x[torch.arange(2)[:, None, None], torch.arange(3)[None, None, :]],
        lambda x, i: x[:, torch.arange(3)[None, :], torch.arange(1, 4)[:, None]],
        lambda x, i: x[torch.arange(2), i[:2]],
        lambda x, i: torch.gather(x, 2, i.abs().expand(2, 3, 4)),
        lambda x, i: torch.gather(x, 1, i.abs().reshape(1, 1, 4)),
        lambda x, i: x.index_copy(1, i[:2], x[:, :2] * 2),
        lambda x, i: torch.ops.aten.index_put(x, [None, i[:2]], torch.tensor(7.0)),
        lambda x, i: torch.slice_scatter(x, x[:, :2] + 1, 1, 1, 3),
        lambda x, i: torch.slice_scatter(x, x[:, :2] + 1, 1, 0, 3, 2),
        lambda x, i: torch.select_scatter(x, x[:, 0], 1, -1),
    ],
)
def test_indexing(function: Callable[..., Any]) -> None:
    check(function, X, INDEX)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a @ b,
        lambda a, b: a[0] @ b[0],
        lambda a, b: a[0, 0] @ b,
        lambda a, b: a @ b[0, :, 0],
        lambda a, b: a[0, 0] @ b[0, :, 0],
        lambda a, b: torch.bmm(a, b),
        lambda a, b: torch.mm(a[0], b[0]),
        lambda a, b: torch.addmm(a[0, 0, :1], a[0], b[0], beta=0.5, alpha=2.0),
        lambda a, b: torch.baddbmm(b[:, :3], a, b),
        lambda a, b: functional.linear(a, b.transpose(1, 2)[0], b[0, 0]),
        lambda a, b: functional.linear(a, b.transpose(1, 2)[1]),
        lambda a, b: torch.einsum("bij,bjk->bki", a, b),
    ],
)
def test_products(function: Callable[..., Any]) -> None:
    check(function, X, random(2, 4, 5, seed=2))


def attend(**options: Any) -> Callable[..., torch.Tensor]:
    return lambda *inputs: functional.scaled_dot_product_attention(*inputs, **options)


Q, K, V = random(2, 4, 3, 8), random(2, 4, 5, 8, seed=1), random(2, 4, 5, 8, seed=2)
MASK = random(2, 1, 3, 5, seed=3)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (attend(), (Q, K, V)),
        (attend(scale=0.5), (Q, K, V)),
        (attend(), (Q, K, V, MASK)),
        (attend(), (Q, K, V, MASK > 0)),
        (attend(), (Q, K, V, MASK[0, 0] > 9)),
        (attend(is_causal=True), (Q, Q, Q)),
        (attend(is_causal=True), (Q, K, V)),
        (attend(is_causal=True), (K, Q, Q)),
        (attend(), (Q[0], K[0], V[0])),
        (attend(enable_gqa=True), (Q, K[:, :2], V[:, :2])),
    ],
)
def test_attention(function: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> None:
    check(function, *inputs)


def test_patch_convolution() -> None:
    image, weight = random(2, 3, 8, 12), random(5, 3, 4, 4, seed=1)
    check(lambda x, w: functional.conv2d(x, w, stride=4), image, weight)
    check(lambda x, w: functional.conv2d(x, w, w[:, 0, 0, 0], stride=(4, 4)), image, weight)


def test_sizes_become_expressions() -> None:
    rows = torch.export.Dim("rows")
    program = check(
        lambda x: (x.reshape(-1), x.mean() * x.shape[0], torch.arange(2 * x.shape[0])[1:]),
        random(5, 4),
        dynamic=({0: rows},),
    )
    assert [str(c.type) for c in program.outputs] == ["f32[4*rows]", "f32[]", "i64[2*rows - 1]"]


def test_symbols_without_a_name_are_numbered() -> None:
    auto = torch.export.Dim.DYNAMIC
    program = import_module(
        Apply(lambda x: x + 1), (random(5, 4),), {"inputs": ({0: auto, 1: auto},)}
    )
    assert [symbol.name for symbol in program.symbols] == ["s0", "s1"]


def test_position_table_bounds_its_symbol() -> None:
    table = nn.Embedding(16, 4)

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = table

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(torch.arange(ids.shape[1])[None] + 2)

    inputs = (torch.zeros(1, 5, dtype=torch.int64),)
    program = import_module(Positions(), inputs, ({1: torch.export.Dim("length")},))
    assert [(s.name, s.maximum) for s in program.symbols] == [("length", 14)]


def test_output_names() -> None:
    program = import_module(
        Apply(lambda x: {"first": x + 1, "rest": [x * 2, None, (x, x[0])]}), (X,)
    )
    names = [container.name for container in program.outputs]
    assert names == ["first", "rest_0", "rest_2_0", "rest_2_1"]
    program = import_module(Apply(lambda x: (x + 1, x * 2)), (X,))
    assert [container.name for container in program.outputs] == ["output", "output_1"]


def test_small_tensors_become_constants() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("small", torch.tensor([[1.5, -2.0], [0.1, 3.0]]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.small

    module = Small()
    program = import_module(module, (random(3, 2),))
    assert not program.weights
    x = random(3, 2)
    actual = interpret(program, {"x": x.numpy()})["output"]
    assert_close(actual, module(x).numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_keep_their_dtype(dtype: torch.dtype) -> None:
    module = nn.Linear(4, 5, dtype=dtype)
    program = import_module(module, (X.to(dtype),))
    (weight,) = program.weights
    assert weight.type.dtype in (DType.BF16, DType.F16, DType.F64)
    stored = program.data[weight.name].astype(np.float64)
    np.testing.assert_array_equal(stored, module.weight.detach().to(torch.float64).numpy())


class Counter(nn.Module):
    """Keeps a running sum, and how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.ones(3))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = self.total * 2
        self.total.add_(x)
        self.calls += 1
        return before, self.total, self.total - before


class Swap(nn.Module):
    """Two buffers that trade places."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("left", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("right", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = self.left.clone()
        self.left.copy_(self.right)
        self.right.copy_(left)
        return self.left + x


class Shift(nn.Module):
    """A buffer that moves to the next one before it changes, and one that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("new", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("old", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.old.copy_(self.new)
        self.new.add_(x)
        return self.old * self.new


class Rows(nn.Module):
    """Writes rows twice and reads the table before, between and after."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(4, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = self.table.sum(0)
        self.table.index_copy_(0, torch.tensor([1]), x[None])
        between = self.table.sum(0)
        self.table[2] = x * 2
        self.table[:2] += 1
        return before, between, self.table.sum(0)


@pytest.mark.parametrize("kind", [Counter, Swap, Shift, Rows])
def test_buffers_persist(kind: type[nn.Module]) -> None:
    module, x = kind(), random(3)
    program = import_module(kind(), (x,))
    persistent: dict[str, np.ndarray] = {}
    for call in range(3):
        with torch.no_grad():
            expected = module(x + call)
        results = expected if isinstance(expected, tuple) else (expected,)
        wanted = [result.clone().numpy() for result in results]
        actual = interpret(program, {"x": (x + call).numpy()}, persistent=persistent)
        for found, right in zip(actual.values(), wanted, strict=True):
            assert_close(found, right)
    for name, buffer in module.named_buffers():
        assert_close(persistent[name], buffer.numpy(), name)
    kept = {c.name for c in program.by_role(Role.PERSIST)}
    assert kept == dict(module.named_buffers()).keys()


def test_zero_buffers_need_no_data() -> None:
    assert import_module(Counter(), (random(3),)).data.keys() == {"total"}


def test_updates_happen_in_place() -> None:
    program = import_module(Rows(), (random(3),))
    writes = [op for op in program.ops() if op.result == "@table"]
    assert writes
    assert all(op.kind == "index_copy" and op.inputs[0] == "@table" for op in writes)


def test_a_value_for_two_buffers_is_written_to_one_and_copied_to_the_other() -> None:
    vector = TensorType(DType.F32, (3,))
    ops = [Op("%0", vector, "add", ("@left", "@x"))]
    types = {"%0": vector, "@left": vector, "@right": vector}
    assert write_buffers(ops, {"@left": "%0", "@right": "%0"}, types) == (
        Op("@left", vector, "add", ("@left", "@x")),
        Op("%old0", vector, "copy", ("@left",)),
        Op("@right", vector, "copy", ("%old0",)),
    )


def test_a_buffer_that_keeps_its_contents_is_not_written() -> None:
    assert write_buffers([], {"@left": "@left"}, {}) == ()
