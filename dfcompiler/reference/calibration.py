"""Measures how close each family of kernels comes to a machine's rates.

Made-up encoders, of widths that no model in the benchmarks has, are compiled to measure their
operators and run at several sizes. For each family of kernels the weights of the time model are
fitted to what was measured, relative errors counting alike and no weight below zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from dfcompiler.analysis.concrete import Concrete
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.time_model import FEATURES, Features, family_of, features
from dfcompiler.ir import Program, parse
from dfcompiler.reference.sampling import sample_inputs
from dfcompiler.runtime import Model

Compile = Callable[[Program], Model]
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
)


@dataclass(frozen=True)
class Sample:
    """One operator at one size.

    Attributes:
        features: seconds that each resource would take alone.
        seconds: what was measured.
    """

    family: str
    features: Features
    seconds: float


def calibrate(machine: Machine, compile_program: Compile, rounds: int = 9) -> Machine:
    """`machine` with weights that were measured here, for its number of threads."""
    samples = [s for e in ENCODERS for s in measure(e, machine, compile_program, rounds)]
    return replace(machine, weights=fit(samples))


def measure(
    encoder: Encoder, machine: Machine, compile_program: Compile, rounds: int
) -> list[Sample]:
    """Every operator of one encoder at every size."""
    with compile_program(encoder_program(encoder)) as model:
        model.set_threads(machine.threads)
        program = lowered_program(model.path)
        found = []
        for batch, tokens in encoder.sizes:
            sizes = {"B": batch, "S": tokens}
            seconds = operator_seconds(model, sample_inputs(program, sizes), rounds)
            found += samples_of(program, sizes, seconds, machine)
    return found


def lowered_program(artifact: Path) -> Program:
    """The program that an artifact was lowered from, without weights."""
    last = max((artifact / "ir").glob("*.ir"))
    return parse(last.read_text(encoding="utf-8"))


def operator_seconds(
    model: Model, inputs: Mapping[str, np.ndarray], rounds: int, warm_up: int = 2
) -> list[float]:
    """The median time of each operator over several runs."""
    runs = []
    for number in range(warm_up + rounds):
        model.run(inputs)
        if number >= warm_up:
            runs.append([time.seconds for time in model.operator_times])
    return [float(seconds) for seconds in np.median(np.array(runs), axis=0)]


def samples_of(
    program: Program, sizes: Mapping[str, int], seconds: Sequence[float], machine: Machine
) -> list[Sample]:
    """Features beside measured times, for a program without loops."""
    concrete = Concrete(program, sizes)
    times = iter(seconds)
    found = []
    for state in program.states():
        for op, types in concrete.typed_ops(state):
            if op.attr("alias", False):
                continue
            elapsed_s, family = next(times), family_of(op, types)
            if family:
                found.append(Sample(family, features(op, types, machine), elapsed_s))
    return found


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
    scale = np.maximum(matrix.max(axis=0), 1e-30)
    weights, _ = nnls(matrix / scale, np.ones(len(samples)))
    found = weights / scale
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
    yield f"    %x0: f32[B, S, {wide}] = gather @table, @ids {{axis = 0}}"
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
