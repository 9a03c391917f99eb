"""Measures how close each family of kernels comes to a machine's rates.

Made-up encoders, of widths that no model in the benchmarks has, are compiled to measure their
operators and run at several sizes. For each family of kernels the weights of the time model are
fitted to what was measured, relative errors counting alike and no weight below zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy.optimize import nnls

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.program_time import weights_of
from dfcompiler.analysis.time_model import (
    FEATURES,
    Features,
    Types,
    family_of,
    features,
    stream_s_per_byte,
    usual_weights,
)
from dfcompiler.ir import Block, Branch, Loop, Op, Program, State, parse
from dfcompiler.reference.sampling import sample_inputs
from dfcompiler.runtime import Model

Compile: TypeAlias = Callable[[Program], Model]
"""Compiles a program to measure its operators (`dfcompiler.compile` with ``profile=True``)."""


@dataclass(frozen=True)
class Encoder:
    """A made-up model: attention and two products of `hidden` in each of `layers`.

    Attributes:
        sizes: batch and tokens of the calls that are measured.
    """

    width: int
    heads: int
    hidden: int
    layers: int
    sizes: tuple[tuple[int, int], ...]


ENCODERS = (
    Encoder(256, 8, 1024, 6, ((1, 8), (1, 24), (1, 96), (2, 112), (6, 144))),
    Encoder(640, 10, 2560, 4, ((1, 8), (1, 24), (1, 96), (2, 112), (6, 144))),
    Encoder(512, 16, 14336, 5, ((1, 8), (1, 24), (1, 96))),
)


STIFFNESS = 0.01
"""How much the usual weights count, as a share of the samples."""


@dataclass(frozen=True)
class Sample:
    """One operator at one size.

    Attributes:
        features: seconds that each resource would take alone.
        seconds: what was measured for one run.
        runs: how often it runs in a call.
    """

    family: str
    features: Features
    seconds: float
    runs: int = 1


def calibrate(machine: Machine, compile_program: Compile, rounds: int = 9) -> Machine:
    """`machine` with rates and weights that were measured here, for its number of threads."""
    cases = prepared(machine, compile_program)
    measured = measure_cases(cases, rounds)
    for model, _, _ in cases:
        model.close()
    rated = with_stream_rates(machine, measured)
    return replace(rated, weights=fit(s for one in measured for s in one.samples(rated)))


@dataclass(frozen=True)
class Measured:
    """The operators of a program at one size, in program order.

    Attributes:
        seconds: the time of each operator that is no view.
    """

    program: Program
    sizes: Mapping[str, int]
    seconds: Sequence[float]

    def samples(self, machine: Machine) -> list[Sample]:
        return samples_of(self.program, self.sizes, self.seconds, machine)


Case: TypeAlias = tuple[Model, Program, Mapping[str, int]]
"""A model that measures its operators, the program that it was lowered from, and sizes."""


def prepared(machine: Machine, compile_program: Compile) -> list[Case]:
    """Every encoder at every size."""
    cases: list[Case] = []
    for encoder in ENCODERS:
        model = compile_program(encoder_program(encoder))
        model.set_threads(machine.threads)
        program = lowered_program(model.path)
        cases += [(model, program, {"B": batch, "S": tokens}) for batch, tokens in encoder.sizes]
    return cases


def measure_cases(cases: Sequence[Case], rounds: int) -> list[Measured]:
    """The lower quartile of each operator's times: what else runs here only makes them longer."""
    times: list[list[list[float]]] = [[] for _ in cases]
    inputs = [sample_inputs(program, sizes) for _, program, sizes in cases]
    for number in range(rounds):
        for runs, (model, _, _), arrays in zip(times, cases, inputs, strict=True):
            for repeat in range(3):
                model.run(arrays)
                if repeat and number:
                    runs.append([time.seconds for time in model.operator_times])
    quartiles = [np.quantile(np.array(runs), 0.25, axis=0) for runs in times]
    return [
        Measured(program, sizes, [float(x) for x in found])
        for (_, program, sizes), found in zip(cases, quartiles, strict=True)
    ]


def with_stream_rates(machine: Machine, measured: Sequence[Measured]) -> Machine:
    """The rates at which weights came where there were few rows: from near, and from memory."""
    rates: dict[bool, list[float]] = defaultdict(list)
    for one in measured:
        weight_bytes = weights_of(one.program)
        seconds_per_byte = stream_s_per_byte(machine, weight_bytes)
        for sample in one.samples(machine):
            if sample.family == "packed product" and sample.features["fma"] < 0.6 * sample.seconds:
                is_near = weight_bytes <= 2 * machine.l3_bytes
                rates[is_near].append(sample.features["stream"] / seconds_per_byte / sample.seconds)
    near, far = (float(np.median(rates[side])) if rates[side] else 0.0 for side in (True, False))
    return replace(machine, l3_rate=near or machine.l3_rate, memory_rate=far or machine.memory_rate)


def lowered_program(artifact: Path) -> Program:
    """The program that an artifact was lowered from, without weights."""
    last = max((artifact / "ir").glob("*.ir"))
    return parse(last.read_text(encoding="utf-8"))


def samples_of(
    program: Program, sizes: Mapping[str, int], seconds: Sequence[float], machine: Machine
) -> list[Sample]:
    """Features of one run of each operator beside its measured time; loops are shared out."""
    concrete = Concrete(program, sizes)
    times, weight_bytes = iter(seconds), weights_of(program)
    found = []
    for op, types, runs in _runs(program.body, concrete, 1):
        if op.attr("alias", False):
            continue
        elapsed_s, family = next(times), family_of(op, types)
        if family and runs:
            parts = features(op, types, machine, weight_bytes)
            found.append(Sample(family, parts, elapsed_s / runs, runs))
    return found


def _runs(
    blocks: Iterable[Block], concrete: Concrete, runs: int
) -> Iterator[tuple[Op, Types, int]]:
    """Every operator in program order, with how often it runs; as in a loop's first iteration."""
    for block in blocks:
        match block:
            case State():
                for op, types in concrete.typed_ops(block):
                    yield op, types, runs
            case Branch():
                yield from _runs((*block.then, *block.orelse), concrete, runs)
            case Loop():
                values = concrete.iterations(block)
                with concrete.bound(block.variable, values.start):
                    yield from _runs(block.body, concrete, runs * len(values))


def fit(samples: Iterable[Sample]) -> dict[str, Features]:
    """The weights of each family: least squares of relative errors."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.seconds > 0:
            groups[sample.family].append(sample)
    return {family: _fit(group) for family, group in sorted(groups.items())}


def _fit(samples: Sequence[Sample]) -> Features:
    rows = [[s.features[name] / s.seconds for name in FEATURES] for s in samples]
    matrix = np.array(rows)
    start = usual_weights(samples[0].family)
    usual = np.array([start.get(name, 0.0) for name in FEATURES])
    # Features that grow alike are told apart by staying near the usual weights.
    anchor = np.diag(np.sqrt(STIFFNESS * np.square(matrix).sum(axis=0)))
    found, _ = nnls(np.vstack([matrix, anchor]), np.append(np.ones(len(samples)), anchor @ usual))
    return {name: float(w) for name, w in zip(FEATURES, found, strict=True) if w > 0}


def encoder_program(encoder: Encoder) -> Program:
    """The program of an encoder, with random weights."""
    text = "\n".join(_lines(encoder))
    program = parse(text)
    random = np.random.default_rng(0)
    data = {
        c.name: (random.standard_normal(c.type.shape) * 0.02).astype(np.float32)
        for c in program.weights
    }
    return replace(program, data=data)


def _lines(encoder: Encoder) -> Iterable[str]:
    wide, hidden, heads = encoder.width, encoder.hidden, encoder.heads
    shapes = {"q": (wide, wide), "k": (wide, wide), "v": (wide, wide), "o": (wide, wide)}
    shapes |= {"up": (wide, hidden), "down": (hidden, wide)}
    yield "program encoder(B, S) {"
    yield "  input @ids: i64[B, S]"
    yield "  input @mask: f32[B, 1, 1, S]"
    yield f"  weight @table: f32[4096, {wide}]"
    yield f"  weight @scale: f32[{wide}]"
    for layer in range(encoder.layers):
        for name, (rows, columns) in shapes.items():
            yield f"  weight @{name}{layer}: f32[{rows}, {columns}]"
            yield f"  weight @{name}_bias{layer}: f32[{columns}]"
    yield f"  output @y: f32[B, S, {wide}]"
    yield "  state main {"
    flat = f"f32[B, S, {wide}]"
    yield f"    %w: {flat} = gather @table, @ids {{axis = 0}}"
    yield f"    %p: {flat} = softmax %w {{axis = 2}}"
    yield f"    %t: f32[B, {wide}, S] = transpose %p {{perm = [0, 2, 1]}}"
    yield f"    %e: f32[B, {wide}, S] = exp %t"
    yield f"    %b: {flat} = transpose %e {{perm = [0, 2, 1]}}"
    yield f"    %c: {flat} = tanh %b"
    yield f"    %x0: {flat} = add %c, %w"
    for layer in range(encoder.layers):
        yield from (f"    {line}" for line in _layer(layer, wide, hidden, heads))
    yield f"    @y: f32[B, S, {wide}] = copy %x{encoder.layers}"
    yield "  }"
    yield "}"


def _layer(layer: int, wide: int, hidden: int, heads: int) -> Iterable[str]:
    flat, split = f"f32[B, S, {wide}]", f"f32[B, S, {heads}, {wide // heads}]"
    parts = f"f32[B, {heads}, S, {wide // heads}]"

    def linear(result: str, type_: str, name: str, value: str) -> Iterable[str]:
        yield f"{result}m: {type_} = matmul {value}, @{name}{layer}"
        yield f"{result}: {type_} = add {result}m, @{name}_bias{layer}"

    for name in "qkv":
        yield from linear(f"%{name}{layer}", flat, name, f"%x{layer}")
        yield f"%{name}s{layer}: {split} = reshape %{name}{layer}"
        yield f"%{name}t{layer}: {parts} = transpose %{name}s{layer} {{perm = [0, 2, 1, 3]}}"
    operands = f"%qt{layer}, %kt{layer}, %vt{layer}, @mask"
    yield f"%a{layer}: {parts} = attention {operands} {{scale = 0.125}}"
    yield f"%at{layer}: {split} = transpose %a{layer} {{perm = [0, 2, 1, 3]}}"
    yield f"%af{layer}: {flat} = reshape %at{layer}"
    yield from linear(f"%o{layer}", flat, "o", f"%af{layer}")
    yield f"%r{layer}: {flat} = add %o{layer}, %x{layer}"
    yield f"%n{layer}: {flat} = layer_norm %r{layer}, @scale, @scale {{epsilon = 1e-05}}"
    yield from linear(f"%u{layer}", f"f32[B, S, {hidden}]", "up", f"%n{layer}")
    yield f"%g{layer}: f32[B, S, {hidden}] = gelu %u{layer}"
    yield from linear(f"%d{layer}", flat, "down", f"%g{layer}")
    yield f"%s{layer}: {flat} = add %d{layer}, %n{layer}"
    yield f"%x{layer + 1}: {flat} = layer_norm %s{layer}, @scale, @scale {{epsilon = 1e-05}}"
