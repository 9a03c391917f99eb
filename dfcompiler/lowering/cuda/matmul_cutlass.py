"""Which matrix products CUTLASS takes, and which of its kernels they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from dfcompiler.analysis.gpu_expansions import LEAST_ROWS
from dfcompiler.analysis.gpu_plans import Plan
from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES
from dfcompiler.ir.program import Op
from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.cpp import SPACE
from dfcompiler.lowering.cuda.matmul_kernels import is_aligned, is_multiple, kernels_of
from dfcompiler.lowering.cuda.product import Product
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.symbolic import is_static

_CHUNK = CHUNK_BYTES // 2
"""Elements of 16 bits that are copied at once."""
_FEW_ROWS = LEAST_ROWS - 1
_TILES: Mapping[str, tuple[int, int]] = {"Wide": (128, 256), "Narrow": (64, 128)}
PLANNED = {"WIDE": "Wide", "MEDIUM": "Narrow"}
"""Tiles as plans call them."""
_OPERANDS = {"_a": "A", "_b": "B", "_o": "C", "_residual": "the residual"}


def why_not_cutlass(problem: Problem) -> str:
    """Why CUTLASS cannot take a product, as far as extents and strides tell; else empty.

    The conditions are those of `fits_cutlass` in ``kernels/cuda/gemm_cutlass.cuh``.
    """
    if is_static(problem.rows) and int(problem.rows) <= _FEW_ROWS:
        return f"{problem.rows} rows are not more than {_FEW_ROWS}"
    if problem.strides["_a"][-1] != 1:
        return "k of A is not contiguous"
    if 1 not in problem.strides["_b"][-2:]:
        return "neither axis of B is contiguous"
    for what, value in _multiples(problem):
        if is_static(value) and not is_multiple(value, _CHUNK):
            return f"{what}, {value}, is no multiple of {_CHUNK}"
    for connector, name in _OPERANDS.items():
        if connector in problem.strides and 0 in _copied(problem, connector):
            return f"a stride of {name} is 0"
    return ""


def cutlass_flags(
    context: Context,
    op: Op,
    found: Product,
    problem: Problem,
    dtype: str,
    plans: Sequence[Plan],
) -> list[str]:
    """The tiles and the other kernels of an instance, as C++; asks for the tiles' own instances."""
    planned = tuple(dict.fromkeys(PLANNED[plan.tile.name] for plan in plans))
    tiles = planned or tiles_of(problem, context.gpu.multiprocessors)
    along = "WIDTH" if problem.strides["_b"][-1] == 1 else "DEPTH"
    for tile in tiles:
        context.instantiate("cutlass_tiles", tiles_instance(dtype, tile, along))
    names = (found.a, found.b, op.result, *((found.other,) if found.other else ()))
    certain = (
        is_static(problem.rows)
        and all(is_multiple(value, _CHUNK) for _, value in _multiples(problem))
        and all(is_aligned(context, name, _CHUNK) for name in names)
    )
    others = kernels_of(context, op, (found.a, found.b), problem, "native", ())
    return [held_tiles(tiles), f"{SPACE}{along}" if certain else others]


def tiles_instance(dtype: str, tile: str, along: str) -> str:
    """The kernel of a tile, for any epilogue, as an explicit instantiation."""
    template = f"{SPACE}cutlass_tiles<{dtype}, {SPACE}Cutlass{tile}, {SPACE}{along}>"
    parameters = f"cudaStream_t, const {SPACE}CutlassProblem<{dtype}>&, int"
    return f"template cudaError_t {template}({parameters});"


def held_tiles(tiles: Sequence[str]) -> str:
    """Tiles as C++ over the names in ``gemm_cutlass.h``."""
    return " | ".join(f"{SPACE}CUTLASS_{tile.upper()}" for tile in tiles)


def tiles_of(problem: Problem, multiprocessors: int) -> tuple[str, ...]:
    """The tile of a product whose extents are numbers, as `gemm_cutlass` chooses it; else both."""
    extents = (*problem.batch[-1:], problem.rows, problem.columns)
    if not all(map(is_static, extents)):
        return tuple(_TILES)
    *batch, rows, columns = map(int, extents)
    count = batch[0] if batch else 1

    def waves(tile: str) -> int:
        height, width = _TILES[tile]
        tiles = count * ceil(rows / height) * ceil(columns / width)
        return ceil(tiles / multiprocessors)

    return ("Wide",) if 3 * waves("Wide") <= waves("Narrow") else ("Narrow",)


def cutlass_record(context: Context, op: Op, found: Product, problem: Problem) -> KernelRecord:
    """Which tiles a product takes."""
    tiles = tiles_of(problem, context.gpu.multiprocessors)
    shapes = " or ".join("x".join(map(str, (*_TILES[tile], 64))) for tile in tiles)
    unknown = [value for _, value in _multiples(problem) if not is_multiple(value, _CHUNK)]
    few = "" if is_static(problem.rows) else f"; native up to {_FEW_ROWS} rows"
    doubt = f"; native where a stride or an extent is no multiple of {_CHUNK}" if unknown else ""
    name = f"cutlass gemm {op.type.dtype.value} {shapes} wgmma"
    return KernelRecord(op, name, f"asked for{found.epilogue}{few}{doubt}")


def _copied(problem: Problem, connector: str) -> list[Any]:
    """The strides of one copied matrix and its batch, but that of the contiguous axis."""
    strides = problem.strides[connector]
    contiguous = -1 if connector != "_b" or strides[-1] == 1 else -2
    rest = -2 if contiguous == -1 else -1
    return [*strides[:-2][-1:], strides[rest]]


def _multiples(problem: Problem) -> Iterator[tuple[str, Any]]:
    """What has to be a multiple of 16 bytes, in words and as a number of elements."""
    yield "the depth", problem.depth
    yield "the number of columns", problem.columns
    for connector, name in _OPERANDS.items():
        strides: Sequence[Any] = problem.strides.get(connector, ())
        if strides:
            outer = strides[:-2][:-1]
            for stride in (*outer, *_copied(problem, connector)):
                yield f"a stride of {name}", stride
