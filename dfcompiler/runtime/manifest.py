"""``manifest.json`` as a loader sees it, and the checks that an artifact has to pass."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dfcompiler.errors import ModelError

SCHEMA_VERSION = 1
_RECOMPILE = "compile the model again with this version"

DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool")
"""Element types in the order of their codes in the C interface."""
_LIBRARY = "model.so"
"""Its hash is always compared: it is small, and running damaged code may do anything."""
_NUMPY_NAMES = {"f": "float", "i": "int", "u": "uint"}


@dataclass(frozen=True)
class Tensor:
    """An input, an output or a piece of persistent state.

    Attributes:
        dtype: ``f32``, ``i64``, …
        shape: extents; a text is an expression over the symbols.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def numpy_name(self) -> str:
        """What numpy calls the dtype."""
        if self.dtype in ("bool", "bf16"):
            return {"bool": "bool", "bf16": "bfloat16"}[self.dtype]
        return _NUMPY_NAMES[self.dtype[0]] + self.dtype[1:]


@dataclass(frozen=True)
class Symbol:
    """A size that varies from call to call.

    Attributes:
        maximum: the greatest value the model takes, if it has a limit.
        fixed_by: the input extent that gives the value, ``ids[1]``; None: the caller gives it.
    """

    name: str
    maximum: int | None
    fixed_by: str | None

    def __str__(self) -> str:
        return self.name if self.maximum is None else f"{self.name} <= {self.maximum}"


@dataclass(frozen=True)
class Signature:
    """What a compiled model takes, gives and keeps."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: tuple[Symbol, ...]
    persistent: tuple[Tensor, ...]

    def __str__(self) -> str:
        sizes = f" for {', '.join(map(str, self.symbols))}" if self.symbols else ""
        inputs, outputs = (", ".join(map(str, side)) for side in (self.inputs, self.outputs))
        return f"({inputs}) -> ({outputs}){sizes}"


@dataclass(frozen=True)
class Manifest:
    """The manifest of an artifact.

    Attributes:
        facts: the whole file.
    """

    folder: Path
    name: str
    max_rank: int
    signature: Signature
    facts: Mapping[str, Any]

    @property
    def on_device(self) -> bool:
        """Whether the model runs on a GPU."""
        return "cuda" in self.facts["target"]

    @property
    def implementations(self) -> frozenset[str]:
        """The words in which the manifest says how operators were implemented."""
        rows = self.facts.get("kernels", ())
        return frozenset(word for row in rows for word in str(row["implementation"]).split())


def read_manifest(folder: Path, verify_hashes: bool = False) -> Manifest:
    """The manifest of an artifact that is complete and that this machine can run.

    Args:
        folder: the artifact.
        verify_hashes: compare the sha256 of every file, not of the library alone.

    Raises:
        ModelError: saying what is wrong with it.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise ModelError(f"{folder} {found}; expected the folder of an artifact")
    facts = _read_facts(folder)
    try:
        manifest = _manifest(folder, facts)
        features, files = list(facts["target"]["cpu_features"]), dict(facts["files"])
        sizes = {name: (int(f["bytes"]), str(f["sha256"])) for name, f in files.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{folder / 'manifest.json'} is damaged: {error!r}", hint=_RECOMPILE
        ) from error
    _check_files(folder, sizes, verify_hashes)
    _check_cpu(folder, features, str(facts["target"].get("name")))
    return manifest


def _read_facts(folder: Path) -> Mapping[str, Any]:
    path = folder / "manifest.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{folder} is no artifact: its manifest.json cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", hint=_RECOMPILE) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("schema_version"), int):
        raise ModelError(f"{path} is no manifest of an artifact: it has no schema_version")
    version = facts["schema_version"]
    if version > SCHEMA_VERSION:
        raise ModelError(
            f"{folder} has schema version {version}; this version reads {SCHEMA_VERSION} at most",
            hint="update dfcompiler, or compile the model again",
        )
    if version < SCHEMA_VERSION:
        raise ModelError(
            f"{folder} has schema version {version}; expected {SCHEMA_VERSION}", hint=_RECOMPILE
        )
    return facts


def _manifest(folder: Path, facts: Mapping[str, Any]) -> Manifest:
    signature = facts["signature"]
    symbols = tuple(
        Symbol(str(s["name"]), s["maximum"], s["fixed_by"]) for s in signature["symbols"]
    )
    return Manifest(
        folder,
        str(facts["name"]),
        int(facts["max_rank"]),
        Signature(
            _tensors(signature["inputs"]),
            _tensors(signature["outputs"]),
            symbols,
            _tensors(facts["persistent"]),
        ),
        facts,
    )


def _tensors(rows: Any) -> tuple[Tensor, ...]:
    found = tuple(
        Tensor(str(row["name"]), DTYPES[DTYPES.index(row["dtype"])], tuple(row["shape"]))
        for row in rows
    )
    for tensor in found:
        if not all(isinstance(dim, int | str) for dim in tensor.shape):
            raise ValueError(f"shape of {tensor.name}")
    return found


def _check_files(folder: Path, sizes: Mapping[str, tuple[int, str]], verify_hashes: bool) -> None:
    for needed in (_LIBRARY, "weights.bin"):
        if needed not in sizes:
            raise ModelError(f"{folder} is damaged: its manifest lists no {needed}")
    for name, (size, digest) in sizes.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ModelError(f"the manifest of {folder} lists {name}, which is outside of it")
        try:
            found = path.stat().st_size
        except OSError as error:
            raise ModelError(
                f"{folder} is incomplete: {name} is missing", hint=_RECOMPILE
            ) from error
        if found != size:
            raise ModelError(f"{path} has {found} bytes; expected {size}", hint=_RECOMPILE)
        if (verify_hashes or name == _LIBRARY) and _sha256(path) != digest:
            raise ModelError(f"{path} was changed: its hash is another one", hint=_RECOMPILE)


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def _check_cpu(folder: Path, features: list[str], target: str) -> None:
    machine = platform.machine()
    if features and machine not in ("x86_64", "AMD64"):
        raise ModelError(f"{folder} is compiled for {target}; this machine is {machine}")
    present = cpu_features()
    missing = [name for name in features if name not in present] if present else []
    if missing:
        raise ModelError(
            f"{folder} is compiled for {target}; this CPU lacks {', '.join(missing)}",
            hint="compile it for --target cpu:x86-64-v3 or cpu:generic",
        )


@cache
def cpu_features() -> frozenset[str]:
    """The CPU's features as Linux names them; empty where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    """The dtype of a result: bfloat16 needs a library that teaches it to numpy, else its bits."""
    if tensor.dtype != "bf16":
        return np.dtype(tensor.numpy_name)
    try:
        return np.dtype("bfloat16")
    except TypeError:
        return np.dtype(np.uint16)
