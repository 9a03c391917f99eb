"""``dfc generate``: text from a compiled decoder, printed as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dfcompiler.cli.options import ArtifactArgument, FormatOption
from dfcompiler.cli.session import Format, Session
from dfcompiler.errors import ModelError, ToolchainError, UsageError

_TOKENS_PER_CALL = 8
"""Tokens between two prints: enough that Python's share of the time is small."""


def generate_command(
    context: typer.Context,
    artifact: ArtifactArgument,
    prompt: Annotated[str, typer.Option("--prompt", help="The text to continue.")],
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="How many to generate.")] = 60,
    form: FormatOption = Format.TEXT,
) -> None:
    """Continue a prompt greedily with a compiled decoder; text appears as it is generated."""
    from dfcompiler.runtime import load

    session: Session = context.obj
    tokenizer = load_tokenizer(artifact)
    model = load(artifact)
    _require_decoder(model)
    ids = tokenizer.encode(prompt).ids
    if not ids:
        raise UsageError("the prompt is empty; expected at least one token")
    found: list[int] = []
    shown = prompt
    if form is Format.TEXT:
        _write(prompt)
    started = time.perf_counter()
    try:
        for some in generate(model, ids, tokens):
            found += some
            text = tokenizer.decode([*ids, *found])
            if form is Format.TEXT and not text.endswith("\ufffd") and text.startswith(shown):
                _write(text[len(shown) :])
                shown = text
    finally:
        if form is Format.TEXT:
            _write("\n")
    elapsed_s = time.perf_counter() - started
    if session.log.is_terminal:
        session.log.print(f"{len(found) / elapsed_s:.0f} tokens/s", style="dim")
    data = {
        "command": "generate",
        "prompt_tokens": ids,
        "tokens": found,
        "text": tokenizer.decode([*ids, *found]),
        "elapsed_s": elapsed_s,
    }
    session.emit(form, data)


def generate(model: Any, ids: list[int], count: int) -> Iterator[list[int]]:
    """Token ids as they come: the prompt's successor first, then a few with every call.

    A model that was compiled with end tokens ends at the first of them, which is not given.

    Raises:
        UsageError: after the last token that fits the model's context.
    """
    model.reset()
    (count_symbol,) = (s for s in model.signature.symbols if s.name == "N")
    given, missing = np.array([ids], np.int64), count
    context = count_symbol.maximum or len(ids) + count
    free = context - len(ids) + 1  # the token that a call ends with takes no place yet
    while missing:
        wanted = min(1 if missing == count else _TOKENS_PER_CALL, missing, free)
        if wanted < 1:
            raise UsageError(
                f"the model's context of {context} tokens is full, {missing} more do not fit",
                hint="ask for fewer --tokens or shorten the prompt",
            )
        outputs = model.run({"ids": given}, N=wanted)
        tokens = outputs["tokens"]
        length = int(outputs["lengths"][0]) if "lengths" in outputs else wanted
        yield [int(token) for token in tokens[0, :length]]
        if length < wanted:
            return
        given, missing, free = tokens[:, -1:], missing - wanted, free - wanted


def load_tokenizer(artifact: Path) -> Any:
    """The tokenizer of an artifact.

    Raises:
        UsageError: if the artifact has none.
        ModelError: if it cannot be read.
        ToolchainError: if the library is not installed.
    """
    path = artifact / "tokenizer.json"
    if not artifact.exists():
        raise UsageError(f"there is no artifact {artifact}")
    if not path.is_file():
        raise UsageError(
            f"{artifact} has no tokenizer.json",
            hint="compile with --tokenizer FILE to put one in",
        )
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ToolchainError(
            "the package tokenizers is not installed", hint="install it with pip install tokenizers"
        ) from None
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelError(f"{path} is no tokenizer: {error}") from error
    found.no_padding()
    found.no_truncation()
    return found


def _require_decoder(model: Any) -> None:
    inputs = [tensor.name for tensor in model.signature.inputs]
    outputs = [tensor.name for tensor in model.signature.outputs]
    sizes = [symbol.name for symbol in model.signature.symbols]
    if inputs != ["ids"] or "tokens" not in outputs or "N" not in sizes:
        raise UsageError(
            f"{model.path} is no decoder: it takes {', '.join(inputs)} and gives "
            f"{', '.join(outputs)}; expected ids and N tokens",
            hint="compile a decoder's step with --pipeline generation",
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
