"""C++ sources and the saved graph of an SDFG, the same bytes for the same graph."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dace
from dace.codegen import codegen
from dace.codegen.targets.cpp import sym2cpp
from dace.config import Config
from dace.dtypes import StorageType

from dfcompiler.codegen.kernel_overlap import HEADER, early_kernels
from dfcompiler.codegen.kernel_sharing import shared_kernels
from dfcompiler.codegen.runtime_headers import device_headers, runtime_headers
from dfcompiler.errors import InternalError

_SETTINGS: dict[tuple[str, ...], object] = {
    ("cache",): "name",
    ("store_history",): False,
    ("progress",): False,
    ("debugprint",): False,
    ("profiling",): False,
    ("optimizer", "automatic_simplification"): False,
    ("optimizer", "detect_control_flow"): False,
    ("optimizer", "autooptimize"): False,
    ("compiler", "codegen_lineinfo"): False,
    ("compiler", "format_code"): False,
    ("compiler", "cpu", "openmp_sections"): False,
    # Kernels of one state too run in order: no event has to be waited for.
    ("compiler", "cuda", "max_concurrent_streams"): 1,
    ("testing", "serialization"): False,
}
"""Where DaCe's defaults are not what we want; everything else is set to its default."""

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]+[>"])[^\n]*\n', re.MULTILINE)
_HEADERS = ('"../../include/hash.h"', "<dace/dace.h>", "<cuda_runtime.h>")
"""What DaCe includes in every program."""
_VOLATILE_KEYS = frozenset(
    {"debuginfo", "hash", "transformation_hist", "orig_sdfg", "source_files"}
)

_FUNCTION = re.compile(r"^inline void (\w+\([^{;]*\)) \{(.*?^\})", re.MULTILINE | re.DOTALL)
_STATE = re.compile(r"^struct \w+ \{.*?^\};", re.MULTILINE | re.DOTALL)
_KERNEL = re.compile(r"dfc::(?:Epilogue\{(?:[^;]*?\})?\}|Epilogue<>|attention::\w+<)")
"""What tells the instances of a kernel apart, in the call of a task."""
_ATTENTION = "dfc::attention::"


@dataclass(frozen=True)
class ProgramSource:
    """The generated function.

    Attributes:
        code: C++ without any ``#include`` but that of the prelude.
        parts: functions that `code` calls, to be compiled beside it: name → code of the same kind.
        includes: the headers that it needs, as spelled, in order.
        symbols: the graph's symbols that the function takes after the arrays, in order.
        device: its kernels for a GPU as CUDA C++, whole with their includes; empty on a CPU.
    """

    code: str
    parts: Mapping[str, str]
    includes: tuple[str, ...]
    symbols: tuple[str, ...]
    device: str = ""


class _ThreadCount(int):
    """An integer whose text is a C++ expression.

    DaCe prints `Map.omp_num_threads` into the ``num_threads`` clause as it stands; with an
    expression there, a call decides at run time how many threads it wakes.
    """

    expression: str

    def __new__(cls, expression: str) -> _ThreadCount:
        count = super().__new__(cls, 1)
        count.expression = expression
        return count

    def __str__(self) -> str:
        return self.expression


@contextlib.contextmanager
def dace_configuration() -> Iterator[None]:
    """DaCe with our settings alone: no ``.dace.conf`` and no ``DACE_…`` variable counts inside."""
    paths = list(_leaves(Config.get_metadata()["required"], ()))
    before = {path: copy.copy(Config.get(*path)) for path in paths}
    try:
        for path in paths:
            Config.set(*path, value=copy.copy(_SETTINGS.get(path, Config.get_default(*path))))
        yield
    finally:
        for path, value in before.items():
            Config.set(*path, value=value)


def generate_program(sdfg: dace.SDFG, prelude: str, work: Any) -> ProgramSource:
    """The source of the function that `sdfg` becomes; the graph itself is not changed.

    Args:
        sdfg: one parallel region around the program.
        prelude: the header that the source includes.
        work: cost of a call in element-wise operations, from which it takes its threads.

    Raises:
        InternalError: if DaCe cannot generate it, or generates other files than one of C++, and
            one of CUDA C++ for a GPU.
    """
    with dace_configuration():
        try:
            expanded = copy.deepcopy(sdfg)
            if not is_on_device(expanded):
                _choose_threads(expanded, work)
            objects = codegen.generate_code(expanded, validate=False)
        except Exception as error:
            raise InternalError(f"DaCe cannot generate code for {sdfg.name}: {error}") from error
    linked = [found for found in objects if found.linkable]
    languages = ["cpp", "cu"] if is_on_device(expanded) else ["cpp"]
    if [found.language for found in linked] != languages:
        names = [f"{found.name}.{found.language}" for found in linked]
        raise InternalError(f"DaCe generated {names}; expected {languages}")
    ours, body = _without_includes(linked[0].clean_code)
    kernels = _device_source(linked[1].clean_code) if linked[1:] else ""
    runtime = device_headers(body) if kernels else runtime_headers(body)
    includes = tuple(dict.fromkeys((*runtime, *ours)))
    head = f'; generated by DaCe {dace.__version__}.\n#include "{prelude}"\n\n'
    body, parts = (body, {}) if kernels else _apart(body)
    code = f"// The program{head}{body}\n"
    parts = {name: f"// Of the program: {name}{head}{part}\n" for name, part in parts.items()}
    # Only now: a symbol may appear when a library node is expanded.
    arguments = tuple(name for name in expanded.arglist() if name not in sdfg.arrays)
    return ProgramSource(code, parts, includes, arguments, kernels)


def is_on_device(sdfg: dace.SDFG) -> bool:
    """Whether the arrays of a graph lie in the memory of a GPU."""
    return any(array.storage == StorageType.GPU_Global for array in sdfg.arrays.values())


def _without_includes(text: str) -> tuple[list[str], str]:
    """The headers that a file includes besides those of every program, and the rest of it."""
    ours = [name for name in _INCLUDE.findall(text) if name not in _HEADERS]
    return list(dict.fromkeys(ours)), _INCLUDE.sub("", text).strip()


def _device_source(text: str) -> str:
    ours, body = _without_includes(text)
    headers = (*device_headers(body), HEADER, *ours)
    lines = [f"#include {name}" for name in dict.fromkeys(headers)]
    head = f"// Kernels of the program; generated by DaCe {dace.__version__}."
    return "\n".join([head, *lines, "", shared_kernels(early_kernels(body)), ""])


def _apart(body: str) -> tuple[str, dict[str, str]]:
    """Takes functions around kernels out, for two compilers to run at the same time.

    Attention takes as long to compile as all the rest; without any, half of the kernels do.
    Functions that share instances of a kernel stay together.
    """
    groups: dict[str, list[str]] = {}
    for found in _FUNCTION.finditer(body):
        kernels = {re.sub(r"\{[^{}]*\}", "", call) for call in _KERNEL.findall(found[2])}
        if kernels:
            groups.setdefault(" ".join(sorted(kernels)), []).append(found[1])
    chosen = [key for key in groups if _ATTENTION in key]
    chosen = chosen or sorted(groups, reverse=True)[: len(groups) // 2]
    taken = {name for key in chosen for name in groups[key]}
    if not taken:
        return body, {}
    functions = [f"void {f[1]} {{{f[2]}" for f in _FUNCTION.finditer(body) if f[1] in taken]
    rest = _FUNCTION.sub(lambda f: f"void {f[1]};" if f[1] in taken else f[0], body)
    return rest, {"kernels": "\n\n".join([*_STATE.findall(body), *functions])}


def _choose_threads(sdfg: dace.SDFG, work: Any) -> None:
    count = _ThreadCount(f"dfc::threads({sym2cpp(work)})")
    for state in sdfg.states():
        for node in state.nodes():
            if isinstance(node, dace.nodes.MapEntry):
                node.map.omp_num_threads = count
    sdfg.append_global_code('#include "cpu/threads.h"\n')


def saved_graph(sdfg: dace.SDFG) -> bytes:
    """The bytes of a ``.sdfgz`` file that DaCe's viewer opens."""
    with dace_configuration():
        tree = _stable(sdfg.to_json(hash=False), {})
    text = json.dumps(tree, sort_keys=False, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def _leaves(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, entry in schema.items():
        if entry["type"] == "dict":
            yield from _leaves(entry["required"], (*path, key))
        elif "default" in entry or any(k.startswith("default_") for k in entry):
            yield (*path, key)


def _stable(tree: Any, names: dict[str, str]) -> Any:
    """`tree` without paths and line numbers, its random identifiers numbered in order."""
    if isinstance(tree, dict):
        kept: dict[str, Any] = {}
        for key, value in tree.items():
            if key in _VOLATILE_KEYS:
                continue
            if key == "guid":
                number = len(names) + 1
                kept[key] = names.setdefault(value, str(uuid.UUID(int=number)))
            else:
                kept[key] = _stable(value, names)
        return kept
    if isinstance(tree, list):
        return [_stable(value, names) for value in tree]
    return tree
