"""Compiled text generation: the KV cache lives in the artifact, the loop in the library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dfcompiler as dfc
from dfcompiler.cli import main
from dfcompiler.cli.generate import load_tokenizer
from dfcompiler.errors import InputError
from dfcompiler.runtime import Model
from models import glassllm
from tests.end_to_end.test_glassllm import reference

TOKENS = 60
CONTEXT = 128
PROMPTS = {"en": "The quick brown fox", "pt": "Era uma vez"}


@pytest.fixture(scope="module", params=glassllm.LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(language: str, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp(language)
    tokenizer = glassllm.write_tokenizer(folder / "tokenizer.json", language)
    program = glassllm.generation_program(language)
    return dfc.compile(program, out=folder / "glass.dfc", tokenizer=tokenizer)


def test_one_call_generates_the_tokens_of_the_reference(model: Model, language: str) -> None:
    ids, expected = reference(language)
    model.reset()
    tokens = model.run({"ids": np.array([ids], np.int64)}, N=TOKENS)["tokens"]
    assert tokens[0].tolist() == expected[:TOKENS]


def test_token_by_token_gives_the_same(model: Model, language: str) -> None:
    ids, expected = reference(language)
    model.reset()
    given, found = np.array([ids], np.int64), []
    for _ in range(TOKENS):
        given = model.run({"ids": given}, N=1)["tokens"]
        found.append(int(given[0, 0]))
    assert found == expected[:TOKENS]


def test_clones_do_not_share_their_cache(model: Model, language: str) -> None:
    ids, expected = reference(language)
    model.reset()
    prompt = np.array([ids], np.int64)
    first = model.run({"ids": prompt}, N=1)["tokens"]
    with model.clone() as other:
        other.run({"ids": prompt[:, :2]}, N=3)
        rest = model.run({"ids": first}, N=4)["tokens"]
    assert [*first[0], *rest[0]] == expected[:5]


def test_running_past_the_context_is_an_error(model: Model) -> None:
    model.reset()
    with pytest.raises(InputError, match="128"):
        model.run({"ids": np.full((1, 100), 5, np.int64)}, N=40)
    model.reset()


def test_the_command_streams_the_same_text(
    model: Model, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", str(model.path), "--prompt", PROMPTS[language], "--tokens", "20"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert main([*arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert text == found["text"] + "\n"
    assert text.startswith(PROMPTS[language])
    model.reset()
    ids = np.array([found["prompt_tokens"]], np.int64)
    assert found["tokens"] == model.run({"ids": ids}, N=20)["tokens"][0].tolist()


def test_the_command_says_when_the_context_is_full(
    model: Model, language: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = PROMPTS[language]
    assert main(["generate", str(model.path), "--prompt", prompt, "--tokens", "200"]) == 2
    out, err = capsys.readouterr()
    tokenizer = load_tokenizer(model.path)
    ids = tokenizer.encode(prompt).ids
    model.reset()
    fits = model.run({"ids": np.array([ids])}, N=CONTEXT - len(ids) + 1)["tokens"][0].tolist()
    assert out.rstrip("\n") == tokenizer.decode([*ids, *fits]).rstrip("\ufffd\n")
    missing = 200 - len(fits)
    assert f"context of {CONTEXT} tokens is full, {missing} more do not fit" in err


def test_a_tokenizer_is_needed(small_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(small_artifact), "--prompt", "x"]) == 2
    assert "no tokenizer.json" in capsys.readouterr().err
