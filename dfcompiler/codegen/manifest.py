"""``manifest.json``: what an artifact is, for its loader and for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dfcompiler.codegen.interface import Interface
from dfcompiler.codegen.store import sha256_of
from dfcompiler.codegen.toolchain import Toolchain
from dfcompiler.codegen.weights import StoredTensor
from dfcompiler.ir import Container, Op, TensorType
from dfcompiler.ir.dims import Dim, show_dim
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.target import CpuTarget, Target

SCHEMA_VERSION = 1
_TOOLS = ("dfcompiler", "dace", "numpy", "sympy", "ml_dtypes", "onnx")


def manifest(
    interface: Interface,
    target: Target,
    tools: Toolchain,
    stored: Sequence[StoredTensor],
    kernels: Sequence[KernelRecord],
    source_hash: str,
) -> dict[str, Any]:
    """Everything but the hashes of the files."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": interface.prefix,
        "source_hash": source_hash,
        "tools": {**_tool_versions(), "compiler": str(tools)},
        "target": _target(target, tools),
        "signature": {
            "inputs": [_tensor(c) for c in interface.inputs],
            "outputs": [_tensor(c) for c in interface.outputs],
            "symbols": [
                {
                    "name": symbol.name,
                    "maximum": symbol.maximum,
                    "fixed_by": interface.fixed_by(symbol.name) or None,
                }
                for symbol in interface.symbols
            ],
        },
        "max_rank": interface.max_rank,
        "persistent": [
            {**_tensor(c), "bytes": c.type.stored_bytes}
            for kept in interface.persistent
            for c in kept.pieces
        ],
        "numeric_policy": {
            "precision": _precision(kernels),
            "flags": list(tools.numeric_flags),
            "compile_flags": list(tools.compile_flags),
            "link_flags": list(tools.link_flags),
        },
        "arena": {
            "bytes": show_dim(_arena(interface)),
            "alignment": 64 if isinstance(target, CpuTarget) else 256,
            "slots": [{"name": s.name, "bytes": show_dim(s.bytes)} for s in interface.slots],
        },
        "weights": [_stored(tensor) for tensor in stored],
        "kernels": [
            {
                "op": record.op.kind,
                "result": record.op.result,
                "source": record.op.source,
                "implementation": record.implementation,
                "reason": record.reason,
            }
            for record in kernels
        ],
    }


def _target(target: Target, tools: Toolchain) -> dict[str, Any]:
    """What the code runs on; a driver runs what was compiled for an older one of its kind."""
    if isinstance(target, CpuTarget):
        return {"name": target.name, "cpu_features": list(target.cpu_features)}
    runtime = tools.compilers[0].version.partition(".")[0]
    cuda = {"architecture": f"sm_{target.arch}", "driver": f"{runtime}.0"}
    return {"name": target.name, "cpu_features": [], "cuda": cuda}


def measured_rows(ops: Sequence[Op]) -> list[dict[str, str]]:
    """The operators that a measuring artifact times, in the order of its last output."""
    return [{"kind": op.kind, "result": op.result, "source": op.source} for op in ops]


def _precision(kernels: Sequence[KernelRecord]) -> str:
    """What products multiply in; sums, normalizations and softmax are in f32 either way."""
    words = {word for record in kernels for word in record.implementation.split()}
    return next((name for name in ("bf16", "f16") if name in words), "f32")


def file_table(folder: Path, known: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file below `folder`, by its path from there.

    Args:
        folder: the artifact.
        known: sha256 of files that need not be read for it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return {
        name: {"bytes": path.stat().st_size, "sha256": known.get(name) or sha256_of(path)}
        for name, path in zip(names, files, strict=True)
    }


def to_json(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _tensor(container: Container) -> dict[str, Any]:
    return {"name": container.name, **_type(container.type)}


def _type(type: TensorType) -> dict[str, Any]:  # noqa: A002
    return {
        "dtype": type.dtype.value,
        "shape": [dim if isinstance(dim, int) else show_dim(dim) for dim in type.shape],
    }


def _stored(tensor: StoredTensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "role": tensor.role,
        **_type(tensor.type),
        "layout": str(tensor.type.layout),
        "offset": tensor.offset,
        "bytes": tensor.bytes,
    }


def _arena(interface: Interface) -> Dim:
    """The sum of the slots, alignment of each left out."""
    total: Dim = 0
    for slot in interface.slots:
        total = total + slot.bytes
    return total


def _tool_versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
