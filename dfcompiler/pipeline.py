"""Passes, and the pipeline that runs, verifies, measures and records them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from itertools import chain, repeat
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from dfcompiler.analysis.cost import Metrics, measure
from dfcompiler.errors import ClaimError, DfcError, InternalError, UsageError
from dfcompiler.ir import Op, Program, verify
from dfcompiler.target import CpuTarget

GROUP = "dfcompiler.passes"
"""The entry-point group in which packages, this one included, register their passes."""

Bindings: TypeAlias = Mapping[str, int]
Decline: TypeAlias = Callable[[Op, str], None]
"""Records an operator that a pass looked at and did not rewrite, with the reason."""

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda after, before: after == before,
    "<=": lambda after, before: after <= before,
}


@dataclass(frozen=True)
class Claim:
    """What a pass promises about a metric: ``flops ==`` (unchanged), ``moved_bytes <=``."""

    metric: str
    relation: str

    @staticmethod
    def parse(text: str) -> Claim:
        """The claim that `text` states.

        Raises:
            ValueError: if the metric or the relation is not known.
        """
        metric, _, relation = text.partition(" ")
        names = [field.name for field in fields(Metrics)]
        if metric not in names or relation not in _RELATIONS:
            raise ValueError(
                f"{text!r} is no claim: expected one of {', '.join(names)}, then == or <="
            )
        return Claim(metric, relation)

    def holds(self, before: Metrics, after: Metrics) -> bool:
        """Whether the claim is kept; a metric that is unknown on one side breaks no claim."""
        old, new = getattr(before, self.metric), getattr(after, self.metric)
        return old is None or new is None or _RELATIONS[self.relation](new, old)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation}"


@dataclass(frozen=True)
class Pass:
    """A rewrite of programs: a frozen dataclass whose fields are its options.

    Attributes:
        name: ``verb-object``, the file's name with hyphens.
        claims: what it promises, such as ``"flops =="`` or ``"moved_bytes <="``.
        after: for a pass of another package: the pass it follows in the named pipelines.
    """

    name: ClassVar[str] = ""
    claims: ClassVar[tuple[str, ...]] = ()
    after: ClassVar[str] = ""

    def run(self, program: Program, decline: Decline) -> Program:
        """The rewritten program; `program` itself when nothing matches."""
        raise NotImplementedError

    def decide(self, program: Program, decline: Decline) -> tuple[Program, tuple[Chosen, ...]]:
        """What `run` gives, and what it chose between alternatives with prices, for reports."""
        return self.run(program, decline), ()

    def parsed_claims(self) -> tuple[Claim, ...]:
        """The claims of this pass.

        Raises:
            ValueError: if a claim does not parse.
        """
        return tuple(map(Claim.parse, self.claims))


@dataclass(frozen=True)
class Declined:
    """A site that a pass looked at and left alone."""

    op: Op
    reason: str

    def __str__(self) -> str:
        origin = f" from {self.op.source}" if self.op.source else ""
        return f"{self.op.kind} {self.op.result}{origin}: {self.reason}"


@dataclass(frozen=True)
class Chosen:
    """A decision between alternatives, at modelled prices.

    Attributes:
        op: the operator as it was before.
        chosen: what was chosen.
        runner_up: the best alternative.
        runner_up_s: seconds of a call by which everything gets dearer with that.
        naive_s: the same for what a compiler without this pass would do.
    """

    op: Op
    chosen: str
    runner_up: str
    runner_up_s: float
    naive_s: float

    def __str__(self) -> str:
        origin = f" from {self.op.source}" if self.op.source else ""
        return (
            f"{self.op.kind} {self.op.result}{origin}: {self.chosen}; {self.runner_up} "
            f"+{self.runner_up_s * 1e6:.3g} µs, naive +{self.naive_s * 1e6:.3g} µs"
        )


@dataclass(frozen=True)
class PassRecord:
    """What one pass did.

    Attributes:
        seconds: time of the rewrite alone, without verification and measurement.
        changed: whether the program differs afterwards; computed, never declared.
        before: metrics at each probe, before the pass.
        after: metrics at each probe, after the pass.
        declined: sites left alone, with reasons.
        chosen: decisions between alternatives.
    """

    name: str
    seconds: float
    changed: bool
    before: tuple[Metrics, ...]
    after: tuple[Metrics, ...]
    declined: tuple[Declined, ...] = ()
    chosen: tuple[Chosen, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """The program after a pass that changed it; number 0 is the imported program."""

    number: int
    name: str
    program: Program

    @property
    def file_name(self) -> str:
        return f"{self.number:02}-{self.name}.ir"


@dataclass(frozen=True)
class PipelineResult:
    """The final program, and how it came about."""

    program: Program
    records: tuple[PassRecord, ...]
    snapshots: tuple[Snapshot, ...]
    probes: tuple[Bindings, ...]


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: tuple[Pass, ...]

    def run(self, program: Program, probes: Sequence[Bindings] = ()) -> PipelineResult:
        """Runs every pass; after each: verify, measure at the probes, check claims, record.

        Args:
            program: a program; it is verified first.
            probes: values of the symbols at which metrics are taken; by default `default_probes`.

        Raises:
            DfcError: from a pass or from verification, saying after which pass.
            ClaimError: when a pass breaks one of its claims.
        """
        probes = tuple(probes) or default_probes(program)
        verify(program)
        snapshots = [Snapshot(0, "import", program)]
        records: list[PassRecord] = []
        before = tuple(measure(program, probe) for probe in probes)
        for number, one in enumerate(self.passes, 1):
            place = f"pass {one.name} ({number} of {len(self.passes)})"
            declined: list[Declined] = []
            started = time.perf_counter()
            result, chosen = _guarded(f"in {place}", _run_pass, one, program, declined)
            seconds = time.perf_counter() - started
            changed = result is not program and result != program
            after = before
            if changed:
                _guarded(f"after {place}", verify, result)
                probes = _completed(probes, result)
                after = _guarded(f"after {place}", _measure_all, result, probes)
                snapshots.append(Snapshot(number, one.name, result))
            _check_claims(one, before, after, f"after {place}")
            records.append(
                PassRecord(one.name, seconds, changed, before, after, tuple(declined), chosen)
            )
            program, before = result, after
        return PipelineResult(program, tuple(records), tuple(snapshots), probes)


def _run_pass(
    one: Pass, program: Program, declined: list[Declined]
) -> tuple[Program, tuple[Chosen, ...]]:
    return one.decide(program, lambda op, reason: declined.append(Declined(op, reason)))


def _measure_all(program: Program, probes: Iterable[Bindings]) -> tuple[Metrics, ...]:
    return tuple(measure(program, probe) for probe in probes)


def _completed(probes: tuple[Bindings, ...], program: Program) -> tuple[Bindings, ...]:
    """The probes with values for the symbols that a pass has added."""
    defaults = default_probes(program)
    return tuple(
        {**default, **probe}
        for default, probe in zip(chain(defaults, repeat(defaults[-1])), probes, strict=False)
    )


def _guarded(place: str, function: Callable[..., Any], *arguments: object) -> Any:
    """`function(*arguments)`; an error says where in the pipeline it happened."""
    try:
        return function(*arguments)
    except DfcError as error:
        error.where = (*error.where, place)
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InternalError(f"{kind}: {error}", (place,)) from error


def _check_claims(
    one: Pass, before: Sequence[Metrics], after: Sequence[Metrics], place: str
) -> None:
    for claim in one.parsed_claims():
        for old, new in zip(before, after, strict=True):
            if claim.holds(old, new):
                continue
            metric = claim.metric
            raise ClaimError(
                f"{one.name} claims {claim} but {metric} went from {getattr(old, metric)} "
                f"to {getattr(new, metric)}",
                (place,),
            )


def default_probes(program: Program) -> tuple[Bindings, ...]:
    """A small and a larger value for every symbol, within its maximum."""
    names = program.symbols
    small = {s.name: _at_most(3 + 2 * i, s.maximum) for i, s in enumerate(names)}
    large = {
        s.name: _at_most(8 * 16**i if i < 2 else 64 + i, s.maximum) for i, s in enumerate(names)
    }
    return (small, large) if small != large else (small,)


def _at_most(value: int, maximum: int | None) -> int:
    return value if maximum is None else min(value, maximum)


# --------------------------------------------------------------------------- finding and assembling


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
    target: CpuTarget | None = None,
    *,
    found: Mapping[str, type[Pass]] | None = None,
) -> Pipeline:
    """The pipeline of exactly these passes; fields called `target` are filled.

    Raises:
        UsageError: if a pass or an option does not exist, listing what does.
    """
    table = discover() if found is None else found
    wanted = [Step(step) if isinstance(step, str) else step for step in steps]
    return Pipeline(tuple(_instance(step, table, target) for step in wanted))


def _instance(step: Step, table: Mapping[str, type[Pass]], target: CpuTarget | None) -> Pass:
    if step.name not in table:
        raise UsageError(
            f"there is no pass {step.name}", hint=f"passes are: {', '.join(sorted(table))}"
        )
    kind, options = table[step.name], dict(step.options)
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
