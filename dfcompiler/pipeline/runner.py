"""Running passes: verified, measured, held to their claims and recorded, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dfcompiler.analysis.concrete import Shared
from dfcompiler.analysis.cost import Metrics, measure
from dfcompiler.errors import ClaimError, DfcError, InternalError
from dfcompiler.ir import Program, verify
from dfcompiler.pipeline.contract import Chosen, Declined, Pass
from dfcompiler.pipeline.probes import Bindings, completed, default_probes


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
class _Step:
    """A pass that ran: what it said, and the program that it left, with the probes of that."""

    one: Pass
    place: str
    seconds: float
    changed: bool
    declined: tuple[Declined, ...]
    chosen: tuple[Chosen, ...]
    program: Program
    probes: tuple[Bindings, ...]


@dataclass(frozen=True)
class Rewritten:
    """The final program, before anything is measured.

    Attributes:
        original: the program before the first pass.
        first_probes: its probes.
        steps: the passes that ran.
    """

    program: Program
    snapshots: tuple[Snapshot, ...]
    probes: tuple[Bindings, ...]
    original: Program
    first_probes: tuple[Bindings, ...]
    steps: tuple[_Step, ...]

    @cached_property
    def measured(self) -> PipelineResult:
        """The same with every pass measured and held to its claims.

        Raises:
            ClaimError: when a pass broke one of its claims.
        """
        shared = Shared()
        before = _measure_all(self.original, self.first_probes, shared)
        records = []
        for step in self.steps:
            records.append(_measured(step, before, shared))
            before = records[-1].after
        return PipelineResult(self.program, tuple(records), self.snapshots, self.probes)


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: tuple[Pass, ...]

    def rewrite(self, program: Program, probes: Sequence[Bindings] = ()) -> Rewritten:
        """Runs every pass and verifies after each; measuring is left for later.

        Raises:
            DfcError: from a pass or from verification, saying after which pass.
        """
        probes = tuple(probes) or default_probes(program)
        verify(program)
        steps = tuple(self._steps(program, probes))
        changes = [(n, step) for n, step in enumerate(steps, 1) if step.changed]
        snapshots = [Snapshot(n, step.one.name, step.program) for n, step in changes]
        last = steps[-1] if steps else None
        return Rewritten(
            last.program if last else program,
            (Snapshot(0, "import", program), *snapshots),
            last.probes if last else probes,
            program,
            probes,
            steps,
        )

    def run(self, program: Program, probes: Sequence[Bindings] = ()) -> PipelineResult:
        """Runs every pass, verifying after each; then measures, checks claims and records.

        Args:
            program: a program; it is verified first.
            probes: values of the symbols at which metrics are taken; by default `default_probes`.

        Raises:
            DfcError: from a pass or from verification, saying after which pass.
            ClaimError: when a pass breaks one of its claims.
        """
        return self.rewrite(program, probes).measured

    def _steps(self, program: Program, probes: tuple[Bindings, ...]) -> Iterator[_Step]:
        """Runs a pass and verifies, whenever the next step is asked for."""
        for number, one in enumerate(self.passes, 1):
            place = f"pass {one.name} ({number} of {len(self.passes)})"
            declined: list[Declined] = []
            started = time.perf_counter()
            result, chosen = _guarded(f"in {place}", _run_pass, one, program, declined)
            seconds = time.perf_counter() - started
            changed = result is not program and result != program
            if changed:
                _guarded(f"after {place}", verify, result)
                probes = completed(probes, result)
            program = result
            yield _Step(one, place, seconds, changed, tuple(declined), chosen, program, probes)


def _run_pass(
    one: Pass, program: Program, declined: list[Declined]
) -> tuple[Program, tuple[Chosen, ...]]:
    return one.decide(program, lambda op, reason: declined.append(Declined(op, reason)))


def _measured(step: _Step, before: tuple[Metrics, ...], shared: Shared) -> PassRecord:
    place, after = f"after {step.place}", before
    if step.changed:
        after = _guarded(place, _measure_all, step.program, step.probes, shared)
    _check_claims(step.one, before, after, place)
    return PassRecord(
        step.one.name, step.seconds, step.changed, before, after, step.declined, step.chosen
    )


def _measure_all(
    program: Program, probes: Iterable[Bindings], shared: Shared
) -> tuple[Metrics, ...]:
    return tuple(measure(program, probe, shared=shared) for probe in probes)


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
