"""The fastest tiles that were measured, kept from one compilation to the next.

One JSON line for the format and one for each entry, in ``tuning.jsonl`` of the cache folder. An
entry is found by everything that its figure depends on: kernel and shape, instruction set,
processor and threads, and the kernel's headers with the compiler. The file is replaced whole, so a
reader sees the old one or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfcompiler.analysis.gpu_expansions import NATIVE
from dfcompiler.analysis.tiling import Product, Tile
from dfcompiler.codegen.store import cache_folder
from dfcompiler.ir.program import Attr

FORMAT = {"format": "dfcompiler tuning database", "version": 2}
"""The first line; entries of another version are measured again."""


class TuningWarning(UserWarning):
    """The database cannot be used as it is; compilation goes on without it."""


@dataclass(frozen=True)
class Conditions:
    """What a measurement holds for besides the product.

    Attributes:
        kernel: which kernel was measured.
        isa: the instruction set it was compiled for.
        cpu: the processor.
        threads: threads of a call.
        version: a digest of the kernel's headers and the compiler.
    """

    kernel: str
    isa: str
    cpu: str
    threads: int
    version: str


@dataclass(frozen=True)
class Choice:
    """What was fastest on a GPU.

    Attributes:
        expansion: whose kernels serve the rows whose tile is no native one.
        tile: the operator's attribute, ``[[rows, BM, BN, BK, stages, parts], …]``; empty for an
            expansion without tiles.
    """

    expansion: str
    tile: tuple[tuple[int, ...], ...]

    @property
    def attributes(self) -> dict[str, Attr]:
        """The attributes of an operator that takes it."""
        tile: dict[str, Attr] = {"tile": self.tile} if self.tile else {}
        return tile if self.expansion == NATIVE else {**tile, "expansion": self.expansion}


class TuningDatabase:
    """Tiles, or choices of a GPU, by product and conditions."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or cache_folder() / "tuning.jsonl"
        self.entries = _read(self.path)

    def find(self, product: Product, conditions: Conditions) -> Tile | Choice | None:
        """What is fastest for a product, if it was measured under these conditions."""
        return self.entries.get(_key(product, conditions))

    def add(self, found: Mapping[Product, Tile | Choice], conditions: Conditions) -> None:
        """Keeps tiles; what another process has added meanwhile stays. A full disk keeps nothing.

        Raises:
            Never: a folder that cannot be written gives a `TuningWarning`.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TuningWarning)  # said when it was opened
            self.entries = {**_read(self.path), **self.entries}
        self.entries.update({_key(product, conditions): tile for product, tile in found.items()})
        lines = [json.dumps(FORMAT)]
        lines += [
            json.dumps({**json.loads(key), **_value(tile)})
            for key, tile in sorted(self.entries.items())
        ]
        try:
            _replace(self.path, "".join(f"{line}\n" for line in lines))
        except OSError as error:
            _warn(self.path, f"cannot be written ({error.strerror}); nothing is remembered")


def _key(product: Product, conditions: Conditions) -> str:
    """The text by which an entry is found; it holds the shape and the conditions in fields."""
    shape = {"rows": list(product.rows), "columns": product.columns, "depth": product.depth}
    return json.dumps({**shape, **vars(conditions)}, sort_keys=True)


def _value(found: Tile | Choice) -> dict[str, Any]:
    """What an entry holds besides its key."""
    if isinstance(found, Tile):
        return {"tile": list(found.attribute)}
    return {"expansion": found.expansion, "tile": [list(one) for one in found.tile]}


def _read(path: Path) -> dict[str, Tile | Choice]:
    """The entries of a file; none, with a warning, where it is no database of this version."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        return _ignored(path, f"cannot be read: {error}")
    try:
        head, *rows = [json.loads(line) for line in lines]
    except ValueError:
        return _ignored(path, "is damaged or half written")
    if not isinstance(head, dict) or head.get("format") != FORMAT["format"]:
        return _ignored(path, "is no tuning database")
    if head != FORMAT:
        version, expected = head.get("version"), FORMAT["version"]
        return _ignored(path, f"has version {version}; this compiler writes version {expected}")
    try:
        return dict(map(_entry, rows))
    except (KeyError, TypeError, ValueError, AttributeError):
        return _ignored(path, "is damaged or half written")


def _entry(row: dict[str, Any]) -> tuple[str, Tile | Choice]:
    product = Product(tuple(map(int, row["rows"])), int(row["columns"]), int(row["depth"]))
    names = ("kernel", "isa", "cpu", "version")
    given = {name: str(row[name]) for name in names}
    key = _key(product, Conditions(threads=int(row["threads"]), **given))
    if "expansion" in row:
        tile = tuple(tuple(map(int, one)) for one in row["tile"])
        if any(len(one) != 6 or min(one[1:]) < 1 for one in tile):
            raise ValueError(f"{row['tile']} is no list of plans")
        return key, Choice(str(row["expansion"]), tile)
    mr, nr, kc, mc = map(int, row["tile"])
    if min(mr, nr, kc, mc) < 1 or kc % 16:
        raise ValueError(f"{row['tile']} is no tile")
    return key, Tile(mr, nr, kc, mc)


def _ignored(path: Path, reason: str) -> dict[str, Tile | Choice]:
    _warn(path, f"{reason}; it is ignored, and replaced by what is measured now")
    return {}


def _warn(path: Path, sentence: str) -> None:
    warnings.warn(f"the tuning database {path} {sentence}", TuningWarning, stacklevel=3)


def _replace(path: Path, text: str) -> None:
    """Writes a file under another name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tuning-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
