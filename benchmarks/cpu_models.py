"""Whole models on the CPU against other engines: times, shares of the ceiling, errors.

Every engine runs in a process of its own. In each of the interleaved rounds it gets a turn after a
pause: one call that does not count (below 100 ms), then calls for 30 ms, whose median counts.
Outputs are compared with torch in float64 first. Ceilings are measured in our process, in each
round, next to our turn. `--only` chooses cases by words of their names; `--missing` leaves out
those that the results have.
"""

from __future__ import annotations

import argparse
import importlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from benchmarks import built, record
from benchmarks.cpu_model_tables import tables
from dfcompiler.reference.difference import compare
from dfcompiler.reference.engines import PEERS, Entry
from dfcompiler.reference.timing import PAIRS, Race, race, ratio
from dfcompiler.reference.worker import Worker

NAME = "cpu_models"
ENCODERS = (
    *(("bert_base", shape) for shape in ((1, 16), (1, 128), (8, 128), (1, 512))),
    *(("minilm", shape) for shape in ((1, 16), (1, 128), (8, 128))),
)
TOLERANCES = {"f32": 1e-4, "bf16": 0.3}
"""Differences from float64 that mean another function, outputs being of order 1."""


@dataclass(frozen=True)
class Case:
    """One model at one shape.

    Attributes:
        section: ``fp32``, ``bf16``, ``decoder`` or ``avx2``.
        model: a file in ``models/``.
        shape: batch and sequence.
        peers: the engines that it is compared with.
        precision: ``f32`` or ``bf16``.
        target: what our artifact is compiled for.
    """

    section: str
    model: str
    shape: tuple[int, int]
    peers: tuple[str, ...] = PEERS
    precision: str = "f32"
    target: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.section} {self.model} {self.shape[0]}x{self.shape[1]}"


CASES = (
    *(Case("fp32", model, shape) for model, shape in ENCODERS),
    Case("decoder", "decoder", (1, 512)),
    Case("avx2", "bert_base", (8, 128), (), target="cpu:x86-64-v3"),
    *(Case("bf16", model, shape, ("openvino",), "bf16") for model, shape in ENCODERS),
)


def main() -> None:
    """Measures the chosen cases; results are written after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=PAIRS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="words, such as: fp32 minilm 1x16")
    parser.add_argument("--missing", action="store_true", help="keep the cases that are there")
    parser.add_argument("--name", default=NAME, help="of the files in benchmarks/results")
    options = parser.parse_args()
    known = {"machine": record.machine(), "threads": options.threads}
    data = {**known, "cases": _kept(options.name, known)}
    for case in CASES:
        if not set(options.only) <= set(case.name.split()):
            continue
        if options.missing and case.name in data["cases"]:
            continue
        print(case.name, flush=True)
        data["cases"][case.name] = _measured(case, options.threads, options.rounds)
        ordered = {c.name: data["cases"][c.name] for c in CASES if c.name in data["cases"]}
        record.write(options.name, {**data, "cases": ordered}, tables({**data, "cases": ordered}))


def _kept(name: str, known: dict[str, Any]) -> dict[str, Any]:
    """Earlier results, if they are of this machine and these versions."""
    path = record.RESULTS / f"{name}.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    same = json.dumps({key: found.get(key) for key in known}) == json.dumps(known)
    return dict(found["cases"]) if same else {}


def _measured(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    inputs = built.random_inputs(case.model, case.shape)
    shapes = {name: array.shape for name, array in inputs.items()}
    sizes = dict(zip(("batch", "sequence"), case.shape, strict=True))
    models = {"dfcompiler": str(built.artifact(case.model, case.target, case.precision))}
    models |= {name: str(built.exported(case.model)) for name in case.peers}
    eager = {"torch", "inductor"} & set(case.peers)
    models |= dict.fromkeys(eager, f"models.{case.model}:build")
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                Worker(Entry(name, model, threads, shapes, sizes, case.precision))
            )
            for name, model in models.items()
        }
        outputs = {name: worker.outputs(inputs) for name, worker in workers.items()}
        errors = _errors(case, inputs, outputs)
        found = race(workers, case.target, rounds)
    return _result(case, found, errors, sizes)


def _errors(
    case: Case, inputs: dict[str, np.ndarray], outputs: dict[str, dict[str, np.ndarray]]
) -> dict[str, float]:
    """Largest absolute differences from torch in float64."""
    from dfcompiler.reference.runners import torch_module

    exact = next(iter(torch_module(_double(case.model))(inputs).values()))
    errors = {}
    for name, found in outputs.items():
        (difference,) = compare({"0": next(iter(found.values()))}, {"0": exact})
        errors[name] = difference.max_abs
        if not difference.max_abs <= TOLERANCES[case.precision]:
            raise SystemExit(f"{case.name}: {name} is {difference.max_abs:.3g} from float64")
    return errors


def _result(
    case: Case, found: Race, errors: dict[str, float], sizes: dict[str, int]
) -> dict[str, Any]:
    from dfcompiler.analysis.cost import measure

    gflop = measure(_program(case.model), sizes).flops * 1e-9
    ours = found.timings[0]
    engines = {}
    for one in found.timings:
        against = ratio(ours, one)
        engines[one.name] = {
            "median_ms": one.median_s * 1e3,
            "spread": one.spread,
            "times_ours": [against.low, against.median, against.high],
            "gflops": gflop / one.median_s,
            "max_abs_from_float64": errors[one.name],
        }
    return {
        "section": case.section,
        "model": case.model,
        "shape": list(case.shape),
        "precision": case.precision,
        "target": case.target,
        "rounds": len(ours.samples_s),
        "gflop": gflop,
        "fma_gflops": found.rates.fma_gflops,
        "tile_gflops": found.rates.tile_gflops,
        "bf16_gflops": found.rates.bf16_gflops,
        "engines": engines,
    }


@cache
def _program(model: str) -> Any:
    from dfcompiler import import_model

    return import_model(built.exported(model))


@cache
def _double(model: str) -> Any:
    return importlib.import_module(f"models.{model}").build().double()


if __name__ == "__main__":
    main()
