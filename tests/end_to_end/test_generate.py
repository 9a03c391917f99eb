"""Compiled text generation: the KV cache lives in the artifact, the loop in the library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dfcompiler as dfc
from dfcompiler.cli import main
from dfcompiler.cli.generate import load_tokenizer
from dfcompiler.errors import InputError, UsageError
from dfcompiler.runtime import Model
from models import glassllm
from tests.end_to_end.test_glassllm import PROMPTS as REFERENCE_PROMPTS
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


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, int]:
    """A decoder that ends at a token of the reference, and the position of that."""
    folder = tmp_path_factory.mktemp("ended")
    tokenizer = glassllm.write_tokenizer(folder / "tokenizer.json")
    _, expected = reference("en")
    place = next(i for i in range(6, TOKENS) if expected[i] not in expected[:i])
    model = dfc.compile(
        glassllm.step_program(),
        out=folder / "glass.dfc",
        pipeline="generation",
        tokenizer=tokenizer,
        end_tokens=(1023, expected[place]),
    )
    return model, place


def test_generation_ends_at_an_end_token(ended: tuple[Model, int]) -> None:
    (ids, expected), (model, place) = reference("en"), ended
    # In the middle, at once, with the last token, and not at all.
    for skipped, count in ((0, TOKENS), (place, 9), (place - 3, 4), (0, place)):
        model.reset()
        prompt = np.array([[*ids, *expected[:skipped]]], np.int64)
        found = model.run({"ids": prompt}, N=count)
        length = min(place - skipped, count)
        assert found["lengths"].tolist() == [length]
        made = expected[skipped : place + 1][:count]
        assert found["tokens"][0].tolist() == made + [1023] * (count - len(made))
        # The cache holds what came before the last token: a call goes on from there.
        after = model.run({"ids": np.array([made[-1:]], np.int64)}, N=1)["tokens"]
        assert after[0].tolist() == [expected[skipped + len(made)]]


def test_the_command_stops_in_front_of_the_end_token(
    ended: tuple[Model, int], capsys: pytest.CaptureFixture[str]
) -> None:
    (_, expected), (model, place) = reference("en"), ended
    prompt = ["--prompt", REFERENCE_PROMPTS["en"], "--tokens", "50", "--format", "json"]
    assert main(["generate", str(model.path), *prompt]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == expected[:place]


def test_end_tokens_are_for_generation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="end tokens are for the pipeline generation"):
        dfc.compile(glassllm.step_program(), out=tmp_path / "x.dfc", end_tokens=(3,))
