"""Decoders of transformers with their static caches: layers in a loop, over stacked caches."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import dfcompiler
from dfcompiler import Model
from dfcompiler.importers.torch_export import import_module
from dfcompiler.ir import Program
from models.cached import CachedStep, dynamic_shapes, example_inputs
from models.seeded import with_random_vectors
from passes.make_generation_loop import MakeGenerationLoop

CONTEXT, LAYERS, NEW_TOKENS = 48, 4, 30
PROMPT = [5, 17, 3, 88, 42]


SIZES = {"vocab_size": 101, "bos_token_id": 0, "eos_token_id": 0}
GROUPED = {
    **SIZES,
    "hidden_size": 32,
    "intermediate_size": 88,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
"""Sizes of decoders whose heads share keys and values in pairs."""
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**SIZES, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=CONTEXT)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),
}


@cache
def decoder(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    found: PreTrainedModel = with_random_vectors(MODELS[name]())
    return found


@cache
def program_of(name: str) -> Program:
    step = CachedStep(decoder(name), CONTEXT).eval()
    imported = import_module(step, example_inputs(), dynamic_shapes(CONTEXT), name=name)
    return MakeGenerationLoop().run(imported, lambda op, reason: None)


@cache
def optimized(name: str) -> Program:
    return dfcompiler.optimize(program_of(name)).program


@cache
def compiled(name: str) -> Model:
    return dfcompiler.compile(program_of(name))


@cache
def reference(name: str) -> list[int]:
    """What the decoder continues the prompt with, without any cache."""
    ids = torch.tensor([PROMPT])
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = decoder(name)(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_without_a_cache(name: str) -> None:
    model = compiled(name).clone()
    prompt = np.array([PROMPT])
    assert model.run({"ids": prompt}, N=NEW_TOKENS)["tokens"][0].tolist() == reference(name)
    model.reset()
    found, given = [], prompt
    for _ in range(NEW_TOKENS):
        given = model.run({"ids": given}, N=1)["tokens"]
        found.append(int(given[0, 0]))
    assert found == reference(name)


@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_decoding_are_loops_over_one_stack_of_caches(name: str) -> None:
    program = optimized(name)
    updates = [op for op in program.ops() if "part" in op.attrs]
    assert len(updates) == 4, "keys and values, in the loop of the prompt and in that of decoding"
    assert len({op.result for op in updates}) == 2
    kinds = ("key_cache", "value_cache", "cumulative_length")
    kept = sorted(tensor.name for tensor in compiled(name).signature.persistent)
    assert kept == sorted(f"{kind}_{i}" for kind in kinds for i in range(LAYERS))
    header = (compiled(name).path / "model.h").read_text(encoding="utf-8")
    assert all(f"keeps key_cache_{i}: " in header for i in range(LAYERS))


@pytest.mark.parametrize("name", MODELS)
def test_attention_reads_the_caches_in_place(name: str) -> None:
    program = optimized(name)
    long = [op for op in program.ops() if CONTEXT in op.type.shape and op.type.dtype.is_float]
    views = {op.kind for op in long if op.attr("alias", False)}
    assert {op.kind for op in long} == views | {"index_copy"}, "no copy is as long as the context"
    assert views == {"slice", "reshape"}
