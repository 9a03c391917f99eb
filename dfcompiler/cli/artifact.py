"""Artifacts and models as programs, for the commands that take either."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from dfcompiler.errors import ModelError, UsageError
from dfcompiler.ir import Layout, Program, TensorType, parse


def is_artifact(path: Path) -> bool:
    """Whether `path` is a folder; an artifact that is broken is one too."""
    return path.is_dir()


def snapshot_files(folder: Path) -> dict[str, Path]:
    """The IR files of an artifact by pass, in order; ``import`` is the first.

    Raises:
        ModelError: if there is none.
    """
    found = {path.stem.partition("-")[2]: path for path in sorted((folder / "ir").glob("*.ir"))}
    if not found:
        raise ModelError(f"{folder} is no artifact: it has no ir/*.ir")
    return found


def read_snapshot(folder: Path, after: str = "") -> Program:
    """The program of an artifact after a pass; the final one by default. It has no weight values.

    Raises:
        ModelError: if the artifact is broken.
        UsageError: if that pass changed nothing or did not run.
    """
    files = snapshot_files(folder)
    name = after or next(reversed(files))
    if name not in files:
        raise UsageError(
            f"{folder} has no program after {name}",
            hint=f"passes that changed it: {', '.join(files)}",
        )
    try:
        return parse(files[name].read_text(encoding="utf-8"))
    except UsageError as error:
        raise ModelError(f"{files[name]} does not parse: {error.message}", error.where) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{files[name]} does not parse: {error}") from error


def read_program(folder: Path) -> Program:
    """The final program of an artifact, with the values of its weights.

    Raises:
        ModelError: if the artifact is broken.
    """
    program = read_snapshot(folder)
    types = {c.name: c.type for c in program.containers}
    data: dict[str, np.ndarray] = {}
    try:
        stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["weights"]
        for row in stored:
            count = row["bytes"]
            raw = np.memmap(folder / "weights.bin", np.uint8, "r", row["offset"], (count,))
            data[row["name"]] = unpack(raw, types[row["name"]])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} is no complete artifact: {error}") from error
    return replace(program, data=data)


def unpack(stored: np.ndarray, type: TensorType) -> np.ndarray:  # noqa: A002
    """The logical tensor of the bytes that a layout put in physical order.

    Raises:
        ValueError: if the number of bytes is another.
    """
    layout: Layout = type.layout
    shape = tuple(int(dim) for dim in type.shape)
    flat = stored.view(type.dtype.numpy)
    if layout.is_row_major:
        return flat.reshape(shape)
    tiles = {a.axis: a.tile for a in layout.order if a.tile}
    blocks = [-(-size // tiles.get(axis, size or 1)) for axis, size in enumerate(shape)]
    physical = flat.reshape(
        [
            shape[a.axis] if not a.tile else a.tile if a.inner else blocks[a.axis]
            for a in layout.order
        ]
    )
    places = {(a.axis, a.inner): i for i, a in enumerate(layout.order)}
    order = [
        places[axis, inner]
        for axis in range(len(shape))
        for inner in (False, True)
        if (axis, inner) in places
    ]
    padded = [
        blocks[axis] * tiles[axis] if axis in tiles else size for axis, size in enumerate(shape)
    ]
    logical = physical.transpose(order).reshape(padded)
    return np.ascontiguousarray(logical[tuple(slice(size) for size in shape)])
