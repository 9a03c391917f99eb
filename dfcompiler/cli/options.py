"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from dfcompiler.cli.session import Format
from dfcompiler.errors import UsageError
from dfcompiler.target import TARGETS

FormatOption = Annotated[Format, typer.Option("--format", help="How to write the result.")]
TargetOption = Annotated[str, typer.Option("--target", help=f"{', '.join(TARGETS)}.")]
ShapeOption = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads it at run time)
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        help="Fix sizes: batch=1, or by input: ids=1,128; ? leaves one free. Repeatable.",
    ),
]
PipelineOption = Annotated[
    str, typer.Option("--pipeline", metavar="NAME|FILE.toml", help="Which passes to run.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="f32, or bf16: products multiply in bfloat16. On GPUs bf16 or f16: all values.",
    ),
]
ExpansionOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--expansion",
        metavar="KIND=NAME",
        help="One implementation for all operators of a kind: matmul=wgmma. Repeatable.",
    ),
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=0, help="Threads to use; 0: one per core.")
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX, .pt2 or .ir file.")]
ModelOrArtifact = Annotated[
    Path, typer.Argument(metavar="MODEL|DIR", help="A model file or an artifact.")
]
ArtifactArgument = Annotated[Path, typer.Argument(metavar="DIR", help="An artifact.")]

_ASSIGNMENT = re.compile(r"([^=]+)=(.+)\Z")


def parse_shapes(texts: Sequence[str] | None) -> dict[str, int | tuple[int | None, ...]]:
    """Sizes by symbol or by input from ``batch=1`` and ``ids=1,?``.

    One number without a comma is a symbol's size; ``ids=7,`` is the shape of a vector.

    Raises:
        UsageError: if a text has another form.
    """
    found: dict[str, int | tuple[int | None, ...]] = {}
    for text in texts or ():
        match = _ASSIGNMENT.match(text)
        if match is None:
            raise UsageError(
                f"--shape {text} is not of the form NAME=SIZES", hint="--shape ids=1,128"
            )
        name, sizes = match[1].strip(), match[2].split(",")
        if len(sizes) == 1:
            found[name] = _size(sizes[0], text)
        else:
            found[name] = tuple(
                None if size.strip() == "?" else _size(size, text) for size in sizes if size.strip()
            )
    return found


def parse_names(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Names by kind from ``matmul=pure``.

    Raises:
        UsageError: if a text has another form, or a kind has two names.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        match = _ASSIGNMENT.match(text)
        if match is None:
            raise UsageError(f"{option} {text} is not of the form KIND=NAME")
        kind, name = match[1].strip(), match[2].strip()
        if found.setdefault(kind, name) != name:
            raise UsageError(f"{option} gives {kind} both {found[kind]} and {name}")
    return found


def parse_sizes(texts: Sequence[str] | None, option: str) -> dict[str, int]:
    """Numbers by name from ``sequence=512``.

    Raises:
        UsageError: if a text has another form.
    """
    found: dict[str, int] = {}
    for text in texts or ():
        match = _ASSIGNMENT.match(text)
        if match is None:
            raise UsageError(f"{option} {text} is not of the form NAME=NUMBER")
        found[match[1].strip()] = _size(match[2], text)
    return found


def _size(text: str, whole: str) -> int:
    if not re.fullmatch(r"\s*\d+\s*", text) or int(text) < 1:
        raise UsageError(f"{text!r} in {whole} is not a positive number")
    return int(text)
