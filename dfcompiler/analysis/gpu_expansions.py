"""Expansions of a matrix product on a GPU that an operator may take, and the tiles of each.

    native    mma.sync and floats, any target (`gpu_tiles`)
    wgmma     ours by wgmma, sm_90a (`gemm_wgmma.cuh`)
    cutlass   NVIDIA's templates by wgmma and TMA, sm_90a, where its headers are installed
    cublaslt  a library at run time: only where it was measured, never by the model

An expansion that an operator names computes the same as the native one, but for the order in which
sums are rounded. One that rounds operands (``tf32``) is for a whole program that asks for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from dfcompiler.analysis.gpu_tiles import LINE_BYTES, TILES, BlockTile
from dfcompiler.target import CudaTarget

NATIVE = "native"
CHOICES = (NATIVE, "wgmma", "cutlass", "cublaslt")
"""What an operator's ``expansion`` may be."""
TRUSTED = (NATIVE,)
"""What the model may choose: what has run on a device, or is a vendor's own."""
LIBRARIES = {"cutlass": "cutlass"}
"""The header library that an expansion is compiled with; see `CudaTarget.libraries`."""
LEAST_ROWS = 65
"""Rows from which a product may be one by wgmma, which multiplies 64 at a time."""


def wgmma_tile(
    expansion: Literal["wgmma", "cutlass"],
    name: str,
    shape: tuple[int, int, int],
    wide: int,
    shared_bytes: int,
) -> BlockTile:
    """A tile of 16-bit elements whose multiply-adds are wgmma's of 64 × `wide`.

    Each of them reads 64 rows of A and `wide` columns of B from shared memory. A block has a warp
    group for the copies besides two that multiply; they share the registers of a multiprocessor.
    """
    rows, columns, stages = shape
    depth, products = 64, rows // 64 * (columns // wide)
    return BlockTile(
        name,
        *(rows, columns, depth, stages, 384, 168),
        shared_bytes=shared_bytes,
        read_cycles=products * 2 * (64 + wide) / LINE_BYTES,
        issue=1,
        unit="wgmma",
        expansion=expansion,
        is_persistent=True,
    )


WGMMA_TILES: dict[str, tuple[BlockTile, ...]] = {
    "wgmma": (
        wgmma_tile("wgmma", "WIDE", (128, 256, 4), 256, 197_632),
        wgmma_tile("wgmma", "LARGE", (128, 128, 6), 128, 197_632),
    ),
    "cutlass": (
        wgmma_tile("cutlass", "WIDE", (128, 256, 4), 256, 230_400),
        wgmma_tile("cutlass", "MEDIUM", (64, 128, 8), 128, 214_016),
    ),
}
"""The tiles of each expansion by wgmma, all for 16-bit elements on sm_90a."""


def tiles_of(expansion: str, element_bytes: int, target: CudaTarget) -> tuple[BlockTile, ...]:
    """The tiles that an expansion has for elements of this size on a target."""
    if expansion == NATIVE:
        return TILES.get(element_bytes, ())
    return WGMMA_TILES.get(expansion, ()) if element_bytes == 2 and target.arch == "90a" else ()


def is_installed(expansion: str, target: CudaTarget) -> bool:
    """Whether what an expansion is compiled with is there."""
    return LIBRARIES.get(expansion, "") in ("", *target.libraries)


def complete(target: CudaTarget) -> CudaTarget:
    """The target with everything installed that trusted expansions are compiled with."""
    needed = (LIBRARIES[expansion] for expansion in TRUSTED if expansion in LIBRARIES)
    return replace(target, libraries=tuple(dict.fromkeys((*target.libraries, *needed))))


def trusted_tiles(element_bytes: int, target: CudaTarget) -> tuple[BlockTile, ...]:
    """The tiles by wgmma that the model may choose besides the native ones."""
    return tuple(
        tile
        for expansion in TRUSTED
        if expansion != NATIVE
        for tile in tiles_of(expansion, element_bytes, target)
        if is_installed(expansion, target)
    )
