"""The trained decoder against its package's own NumPy forward pass."""

from __future__ import annotations

from functools import cache

import glassllm
import numpy as np
import pytest
from tokenizers import Tokenizer

import dfcompiler
from dfcompiler import Model
from dfcompiler.errors import InputError
from dfcompiler.ir import Program, Role, interpret, parse, show, verify
from dfcompiler.target import parse_target
from models.glassllm import LANGUAGES, generation_program, step_program, tokenizer_json
from passes.pipelines import named
from tests.tolerances import assert_close

PROMPTS = {"en": "Alice was beginning to", "pt": "Era uma vez uma menina"}
NEW_TOKENS = 60

program_of = cache(generation_program)


@cache
def compiled(language: str) -> Model:
    return dfcompiler.compile(program_of(language))


def run(model: Model, ids: list[int], count: int) -> list[int]:
    return model.run({"ids": np.array([ids])}, N=count)["tokens"][0].tolist()


@cache
def reference(language: str) -> tuple[list[int], list[int]]:
    """The prompt's tokens, and the greedy continuation of the reference."""
    model, tokenizer = glassllm.load_pretrained(language)
    ids = tokenizer.encode(PROMPTS[language])
    return ids, [step.token for step in model.generate(ids, NEW_TOKENS, greedy=True)]


def generate(program: Program, ids: list[int], count: int, persistent: dict) -> list[int]:
    outputs = interpret(
        program, {"ids": np.array([ids])}, symbols={"N": count}, persistent=persistent
    )
    return outputs["tokens"][0].tolist()


@pytest.mark.parametrize("language", LANGUAGES)
def test_whole_generation_gives_the_tokens_of_the_reference(language: str) -> None:
    ids, expected = reference(language)
    assert generate(program_of(language), ids, NEW_TOKENS, {}) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_token_by_token_gives_the_tokens_of_the_reference(language: str) -> None:
    ids, expected = reference(language)
    persistent: dict[str, np.ndarray] = {}
    found = []
    for _ in range(10):
        ids = generate(program_of(language), ids, 1, persistent)
        found += ids
    assert found == expected[:10]


def test_calls_continue_where_the_last_one_ended() -> None:
    ids, expected = reference("en")
    persistent: dict[str, np.ndarray] = {}
    first = generate(program_of("en"), ids, 7, persistent)
    second = generate(program_of("en"), first[-1:], 8, persistent)
    assert first + second == expected[:15]
    assert persistent["position"].tolist() == [len(ids) + 14]


def test_logits_are_those_of_the_reference() -> None:
    model, _ = glassllm.load_pretrained("en")
    ids, _ = reference("en")
    expected = model.forward(np.array([ids])).data[:, -1].astype(np.float32)
    assert_close(interpret(step_program("en"), {"ids": np.array([ids])})["logits"], expected)


def test_caches_are_written_in_place() -> None:
    program = program_of("en")
    caches = {f"@{c.name}" for c in program.by_role(Role.PERSIST) if "cache" in c.name}
    assert len(caches) == 8
    writes = [op for op in program.ops() if op.result in caches]
    assert all(op.kind == "index_copy" and op.inputs[0] == op.result for op in writes)
    assert not program.data.keys() & {name[1:] for name in caches}


def test_any_schedule_loads_every_weight_once() -> None:
    """Keys and values need their weights whole, although caches keep rows that are not known."""
    pipeline = named("default", parse_target("cpu:x86-64-v4"))
    (found,) = pipeline.run(program_of("en"), [{"S": 3, "N": 5}]).records[-1].after
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 341 + 2 * 128
    weights = 1024 * 128 + 4 * layer + 128
    rows, logits = 2 * 16, 1024  # of the cosines and sines; at least
    last_token, tokens = 8, 5 * 8
    assert found.io_bound_bytes == 4 * (weights + rows + logits) + last_token + tokens


def test_text_form_round_trips() -> None:
    program = program_of("en")
    assert parse(show(program)) == program
    verify(program)


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InputError, match="128 at most"):
        generate(program_of("en"), [5] * 129, 1, {})


def test_generating_past_the_context_is_an_error() -> None:
    with pytest.raises(IndexError):
        generate(program_of("en"), [5] * 100, 30, {})


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_generation_gives_the_tokens_of_the_reference(language: str) -> None:
    ids, expected = reference(language)
    model = compiled(language).clone()
    assert run(model, ids, NEW_TOKENS) == expected
    model.reset()
    found: list[int] = []
    for _ in range(NEW_TOKENS):
        found += run(model, found[-1:] or ids, 1)
    assert found == expected


def test_compiled_instances_have_caches_of_their_own() -> None:
    ids, expected = reference("en")
    first, second = compiled("en").clone(), compiled("en").clone()
    found = run(first, ids, 5)
    assert run(second, ids, 3) == expected[:3]
    assert found + run(first, found[-1:], 4) == expected[:9]


def test_compiled_model_refuses_to_leave_the_context() -> None:
    model = compiled("en").clone()
    with pytest.raises(InputError, match="128 at most"):
        run(model, [5] * 129, 1)
    with pytest.raises(InputError, match="index 128 is out of range"):
        run(model, [5] * 100, 30)
    model.reset()
    assert run(model, reference("en")[0], 3) == reference("en")[1][:3]


@pytest.mark.parametrize("language", LANGUAGES)
def test_converted_tokenizer_encodes_like_the_package(language: str) -> None:
    _, own = glassllm.load_pretrained(language)
    converted = Tokenizer.from_str(tokenizer_json(language))
    texts = [
        *PROMPTS.values(),
        "",
        " leading, trailing and  double spaces ",
        "lines\n\nand\n lines \n",
        "“Café” naïve — über 1234567890 ▁ marker <unk> <pad>",
        "e\u0301 composed, 日本語 unknown 🙂!",
        "Alice’s Adventures in Wonderland, CHAPTER I. Down the Rabbit-Hole " * 3,
    ]
    for text in texts:
        ids = own.encode(text)
        assert converted.encode(text).ids == ids, text
        if own.unk_id not in ids:
            assert converted.decode(ids, skip_special_tokens=False) == own.decode(ids), text
