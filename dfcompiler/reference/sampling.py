"""Random inputs that a program accepts: ids within their tables, masks with real padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from dfcompiler.errors import UsageError
from dfcompiler.ir.dims import evaluate, show_dim
from dfcompiler.ir.program import Container, Op, Program, Role

_SAME_VALUES = ("reshape", "expand", "transpose", "slice", "copy", "cast")
_DEFAULT_SIZES = (2, 16, 8, 4)


def sample_inputs(
    program: Program, symbols: Mapping[str, int], seed: int = 0
) -> dict[str, np.ndarray]:
    """One array for every input of `program` at these sizes.

    Floating inputs are standard normal. Integer inputs that index a table stay below its size;
    other integers are 0 or 1. An input with "mask" in its name is ones followed by padding: the
    rows of a batch keep fewer and fewer positions, at least one each.

    Raises:
        UsageError: if a size of an input has no value.
    """
    limits = index_limits(program)
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for container in program.inputs:
        shape = concrete_shape(container, symbols)
        dtype = container.type.dtype
        if "mask" in container.name and not dtype.is_float and len(shape) == 2:
            array = padding_mask(*shape)
        elif dtype.is_float:
            array = rng.standard_normal(shape)
        else:
            array = rng.integers(0, limits.get(container.name, 2), shape)
        arrays[container.name] = np.asarray(array).astype(dtype.numpy)
    return arrays


def concrete_shape(container: Container, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The extents of a container at these sizes.

    Raises:
        UsageError: if a size has no value.
    """
    try:
        return tuple(evaluate(dim, symbols) for dim in container.type.shape)
    except KeyError as error:
        shape = ", ".join(map(show_dim, container.type.shape))
        raise UsageError(
            f"{error.args[0]} has no value; {container.name} is [{shape}]",
            hint=f"give it with --shape {error.args[0]}=…",
        ) from None


def default_sizes(program: Program) -> dict[str, int]:
    """Small sizes for all symbols of a program, within their limits."""
    sizes = (*_DEFAULT_SIZES, *[4] * len(program.symbols))
    return {
        symbol.name: size if symbol.maximum is None else min(size, symbol.maximum)
        for symbol, size in zip(program.symbols, sizes, strict=False)
    }


def padding_mask(batch: int, sequence: int) -> np.ndarray:
    """Ones, then zeros: row i keeps between all and half of the positions."""
    lengths = np.maximum(1, sequence - np.arange(batch) * sequence // (2 * batch))
    return np.asarray((np.arange(sequence) < lengths[:, None]).astype(np.int64))


def index_limits(program: Program) -> dict[str, int]:
    """For every input that indexes a table, the size of the smallest table."""
    limits: dict[str, int] = {}
    containers = program.table()
    for state in program.states():
        origins = {f"@{c.name}": c.name for c in program.by_role(Role.INPUT)}
        shapes = {f"@{name}": c.type.shape for name, c in containers.items()}
        for op in _flat(state.ops):
            shapes[op.result] = op.type.shape
            if op.kind in _SAME_VALUES and op.inputs and op.inputs[0] in origins:
                origins[op.result] = origins[op.inputs[0]]
            if op.kind not in ("gather", "take_along") or op.inputs[1] not in origins:
                continue
            table = shapes[op.inputs[0]]
            extent = table[int(op.attr("axis")) % len(table)]
            if isinstance(extent, int):
                name = origins[op.inputs[1]]
                limits[name] = min(extent, limits.get(name, extent))
    return limits


def _flat(ops: Iterable[Op]) -> Iterable[Op]:
    """Operators with those of their regions before them."""
    for op in ops:
        yield from _flat(op.region)
        yield op
