"""The reference semantics of programs, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

import numpy as np

from dfcompiler.errors import InputError
from dfcompiler.ir.dims import Dim, evaluate, show_dim
from dfcompiler.ir.operators import OPERATORS
from dfcompiler.ir.program import Block, Branch, Container, Loop, Op, Program, Role, State

Array = np.ndarray
Persistent = MutableMapping[str, Array]
Observer = Callable[[Op, Array], None]


def interpret(
    program: Program,
    inputs: Mapping[str, Array],
    *,
    symbols: Mapping[str, int] | None = None,
    persistent: Persistent | None = None,
    precision: np.dtype | None = None,
    observe: Observer | None = None,
) -> dict[str, Array]:
    """Runs `program` on `inputs` and returns its outputs by name.

    Args:
        program: a verified program whose weights are in its `data`.
        inputs: one array per input container.
        symbols: values of symbols that no input's shape fixes.
        persistent: contents of persistent containers, updated in place; fresh ones if absent.
            Those with parts are there part by part.
        precision: a floating dtype in which all floating values are computed, such as float64.
        observe: called with every operator and its result.

    Raises:
        InputError: if an input is missing or its rank, size or dtype does not fit.
    """
    run = _Run(program, inputs, dict(symbols or {}), precision, observe)
    run.load_persistent(persistent if persistent is not None else {})
    run.blocks(program.body)
    return {output.name: run.memory[output.name] for output in program.outputs}


def bind_symbols(program: Program, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The value of every symbol that is an extent of a tensor in `shapes`.

    Raises:
        InputError: if extents contradict each other or a declared size.
    """
    bindings: dict[str, int] = {}
    maxima = {symbol.name: symbol.maximum for symbol in program.symbols}
    for name, shape in shapes.items():
        declared = program.container(name).type.shape
        if len(declared) != len(shape):
            raise InputError(f"{name} has rank {len(shape)}; expected {len(declared)}")
        for dim, size in zip(declared, shape, strict=True):
            if isinstance(dim, int) or not dim.is_Symbol:
                continue
            if bindings.setdefault(dim.name, size) != size:
                raise InputError(f"{name} has {dim.name} = {size}; elsewhere {bindings[dim.name]}")
            limit = maxima.get(dim.name)
            if limit is not None and size > limit:
                raise InputError(f"{name} has {dim.name} = {size}; the model takes {limit} at most")
    return bindings


class _Run:
    def __init__(
        self,
        program: Program,
        inputs: Mapping[str, Array],
        symbols: dict[str, int],
        precision: np.dtype | None,
        observe: Observer | None,
    ) -> None:
        self.program, self.precision, self.observe = program, precision, observe
        self.kept = {f"@{c.name}": c for c in program.by_role(Role.PERSIST)}
        missing = [c.name for c in program.inputs if c.name not in inputs]
        if missing:
            raise InputError(f"missing input {', '.join(missing)}")
        given = {c.name: np.asarray(inputs[c.name]) for c in program.inputs}
        self.bindings = symbols | bind_symbols(program, {n: a.shape for n, a in given.items()})
        for container in program.inputs:
            self.check(container.name, given[container.name])
        self.memory: dict[str, Array] = {n: self.converted(a) for n, a in given.items()}
        for weight in program.weights:
            self.memory[weight.name] = self.converted(np.asarray(program.data[weight.name]))

    def check(self, name: str, array: Array) -> None:
        declared = self.program.container(name).type
        if array.dtype != declared.dtype.numpy:
            raise InputError(f"{name} is {array.dtype}; expected {declared.dtype.numpy}")
        shape = tuple(evaluate(dim, self.bindings) for dim in declared.shape)
        if array.shape != shape:
            raise InputError(f"{name} has shape {list(array.shape)}; expected {list(shape)}")

    def load_persistent(self, persistent: Persistent) -> None:
        for container in self.program.by_role(Role.PERSIST):
            shape = tuple(evaluate(dim, self.bindings) for dim in container.type.shape)
            zeros = np.zeros(shape, container.type.dtype.numpy)
            initial = self.program.data.get(container.name, zeros)
            if container.parts:
                parts = zip(container.parts, np.asarray(initial), strict=True)
                kept = np.stack([persistent.setdefault(name, part) for name, part in parts])
            else:
                kept = persistent.setdefault(container.name, initial)
            self.memory[container.name] = self.converted(kept)
        self.persistent = persistent

    def keep(self, container: Container, value: Array) -> None:
        """Takes over what was written to persistent state, by the names that callers know."""
        parts = value if container.parts else (value,)
        names = (one.name for one in container.pieces)
        self.persistent.update(zip(names, parts, strict=True))

    def converted(self, array: Array) -> Array:
        if self.precision is None or not _is_float(array):
            return array
        return array.astype(self.precision)

    def blocks(self, blocks: tuple[Block, ...]) -> None:
        for block in blocks:
            match block:
                case State():
                    self.state(block)
                case Branch():
                    taken = bool(self.memory[block.condition.removeprefix("@")])
                    self.blocks(block.then if taken else block.orelse)
                case Loop():
                    self.loop(block)

    def loop(self, loop: Loop) -> None:
        for value in range(self.value(loop.start), self.value(loop.stop)):
            if loop.until and bool(self.memory[loop.until.removeprefix("@")]):
                break
            self.bindings[loop.variable] = value
            self.blocks(loop.body)
        self.bindings.pop(loop.variable, None)

    def value(self, dim: Dim) -> int:
        try:
            return evaluate(dim, self.bindings)
        except KeyError as error:
            raise InputError(
                f"no input fixes {error.args[0]}, needed for {show_dim(dim)}"
            ) from None

    def state(self, state: State) -> None:
        values: dict[str, Array] = {}
        for op in state.ops:
            arguments = [self.memory[n[1:]] if n.startswith("@") else values[n] for n in op.inputs]
            with np.errstate(all="ignore"):
                result = OPERATORS[op.kind].reference(op, arguments, self.bindings)
            result = self.converted(np.asarray(result, dtype=self.result_dtype(op)))
            if self.observe:
                self.observe(op, result)
            if op.result.startswith("@"):
                self.memory[op.result[1:]] = result
                if op.result in self.kept:
                    self.keep(self.kept[op.result], result)
            else:
                values[op.result] = result

    def result_dtype(self, op: Op) -> np.dtype:
        declared = op.type.dtype.numpy
        return self.precision if self.precision and op.type.dtype.is_float else declared


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
