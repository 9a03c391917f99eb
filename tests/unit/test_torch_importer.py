"""Import from torch: whole models at several shapes, their names, sizes and weights."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from dfcompiler.importers.torch_export import import_exported, import_module
from dfcompiler.ir import DType, Program, interpret, parse, show
from models import bert, gpt2, llama, qwen3, vit
from tests.tolerances import assert_close
from tests.torch_functions import Apply, check, random

MODELS = {"bert": bert, "gpt2": gpt2, "llama": llama, "qwen3": qwen3, "vit": vit}
SHAPES = [{"batch": 2, "sequence": 7}, {"batch": 1, "sequence": 3}, {"batch": 3, "sequence": 20}]
X = random(2, 3, 4)


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
