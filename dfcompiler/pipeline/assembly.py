"""From names to a pipeline: installed passes, their options, files that list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dfcompiler.errors import UsageError
from dfcompiler.pipeline.contract import Pass
from dfcompiler.pipeline.runner import Pipeline
from dfcompiler.target import Target

GROUP = "dfcompiler.passes"
"""The entry-point group in which packages, this one included, register their passes."""


@dataclass(frozen=True)
class Step:
    """A pass by name, with options."""

    name: str
    options: tuple[tuple[str, object], ...] = ()


def discover() -> dict[str, type[Pass]]:
    """Every installed pass by name, built-in and third-party alike.

    Raises:
        UsageError: if a package registers something that is no pass, or a name twice.
    """
    found: dict[str, type[Pass]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        try:
            loaded = point.load()
        except Exception as error:
            raise UsageError(
                f"the pass {point.name} at {point.value} does not load: {error}",
                hint="reinstall or remove the package that registers it",
            ) from error
        if not (isinstance(loaded, type) and issubclass(loaded, Pass)):
            raise UsageError(f"{point.value} is registered as a pass but is not one")
        if found.setdefault(loaded.name, loaded) is not loaded:
            raise UsageError(f"two packages register a pass called {loaded.name}")
    return found


def assemble(
    steps: Sequence[Step | str],
    target: Target | None = None,
    *,
    found: Mapping[str, type[Pass]] | None = None,
) -> Pipeline:
    """The pipeline of exactly these passes; fields called `target` are filled.

    Raises:
        UsageError: if a pass or an option does not exist, listing what does, or if a pass is not
            for this target.
    """
    table = discover() if found is None else found
    wanted = [Step(step) if isinstance(step, str) else step for step in steps]
    return Pipeline(tuple(_instance(step, table, target) for step in wanted))


def _instance(step: Step, table: Mapping[str, type[Pass]], target: Target | None) -> Pass:
    if step.name not in table:
        raise UsageError(
            f"there is no pass {step.name}", hint=f"passes are: {', '.join(sorted(table))}"
        )
    kind, options = table[step.name], dict(step.options)
    if target is not None and target.kind not in kind.runs_on:
        raise UsageError(
            f"{step.name} is not for {target.name}, only for {kind.runs_on[0]} targets"
        )
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        listed = ", ".join(name for name in known if name != "target") or "none"
        raise UsageError(
            f"{step.name} has no option {', '.join(unknown)}", hint=f"its options are: {listed}"
        )
    if "target" in known:
        options.setdefault("target", target)
    return kind(**options)


def extended(
    names: Sequence[str], found: Mapping[str, type[Pass]] | None = None
) -> tuple[str, ...]:
    """`names` with every installed pass that states `after` inserted behind that pass.

    Raises:
        UsageError: if a pass wants to follow one that is not there.
    """
    table = discover() if found is None else found
    order = list(names)
    waiting = sorted(n for n, kind in table.items() if kind.after and n not in order)
    while waiting:
        ready = [name for name in waiting if table[name].after in order]
        if not ready:
            name = waiting[0]
            raise UsageError(
                f"the pass {name} follows {table[name].after}, which is not in the pipeline",
                hint=f"the pipeline is: {', '.join(order)}",
            )
        for name in reversed(ready):
            last = len(order) - 1 - order[::-1].index(table[name].after)
            order.insert(last + 1, name)
        waiting = [name for name in waiting if name not in ready]
    return tuple(order)


def read_steps(path: Path) -> tuple[Step, ...]:
    """The passes that a TOML file lists, in order.

    Each is a name, or a table with the name and its options::

        passes = ["canonicalize", {name = "fuse-elementwise", limit = 16}]

    Raises:
        UsageError: if the file cannot be read or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the pipeline file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the pipeline file {path} is not text") from error
    try:
        content = _toml().loads(text)
    except ValueError as error:
        raise UsageError(f"the pipeline file {path} is not TOML: {error}") from error
    entries = content.get("passes")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{path} has no list of passes: expected passes = ["canonicalize", …]')
    return tuple(_step(entry, path) for entry in entries)


def _toml() -> Any:
    """The TOML reader: in the standard library from Python 3.11, a package before."""
    try:
        return import_module("tomllib")
    except ModuleNotFoundError:
        return import_module("tomli")


def _step(entry: object, path: Path) -> Step:
    match entry:
        case str():
            return Step(entry)
        case {"name": str() as name, **options}:
            pairs = {str(key): value for key, value in options.items()}
            return Step(name, tuple(sorted(pairs.items())))
    raise UsageError(f"{path}: {entry!r} is neither a pass name nor a table with a name")
