"""Running passes: verified, measured, held to their claims and recorded, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
                probes = completed(probes, result)
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
