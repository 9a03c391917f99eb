"""Measuring the tiles of matrix products: the kernel cut out of the program, on its own.

Each tile becomes one function around the kernel's header, compiled as an artifact's sources are.
Tiles take turns, and weights alternate between copies that no cache near a core holds together, as
the layers of a model do.
"""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfcompiler.analysis.cache_sets import row_pad
from dfcompiler.analysis.tiling import Caches, Product, Tile, block_count, candidates, tile_on
from dfcompiler.codegen.library import KERNELS, kernels_digest
from dfcompiler.codegen.process import run_all
from dfcompiler.codegen.store import digest, stored
from dfcompiler.codegen.toolchain import compile_flags, find_compiler
from dfcompiler.codegen.tuning_database import Conditions, TuningDatabase
from dfcompiler.target import CpuTarget, host_features

CANDIDATES = 6
"""Tiles that are measured for a product."""
ROUNDS = 7
RUN_S = 0.004
"""Seconds of one run of one tile in one round."""
WARM_UP_S = 0.15
WEIGHT_BYTES = 48 << 20
"""Bytes of all copies of a weight together."""


@dataclass(frozen=True)
class Measurement:
    """One tile of one product.

    Attributes:
        seconds: of a call, for each number of rows of the product.
    """

    tile: Tile
    seconds: tuple[float, ...]


def tune(
    products: Iterable[Product], target: CpuTarget, database: TuningDatabase
) -> dict[Product, Tile]:
    """The fastest tile of each product: remembered, or measured here and remembered.

    A target whose instructions this machine lacks keeps the tiles that were chosen.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    if not host_features().issuperset(target.cpu_features):
        return {}
    conditions = conditions_of(target)
    wanted = list(dict.fromkeys(products))
    known = {p: database.find(p, conditions) for p in wanted}
    found = {p: tile for p, tile in known.items() if isinstance(tile, Tile)}
    missing = [product for product in wanted if product not in found]
    if missing:
        caches = Caches.of(target)
        choices = {
            p: candidates(p, caches, target.gemm_mr, target.gemm_nr, CANDIDATES) for p in missing
        }
        measured = measure({p: tiles for p, tiles in choices.items() if tiles}, target)
        fastest = {product: best(rows) for product, rows in measured.items()}
        database.add(fastest, conditions)
        found.update(fastest)
    return found


def conditions_of(target: CpuTarget) -> Conditions:
    """What measurements on this machine hold for."""
    version = digest([kernels_digest(), str(find_compiler()), *compile_flags(target)])[:16]
    return Conditions("packed product f32", target.isa, _cpu(), target.cores, version)


def best(rows: Sequence[Measurement]) -> Tile:
    """The tile that loses least over all numbers of rows; the first one among equals."""
    fastest = [min(times) for times in zip(*(row.seconds for row in rows), strict=True)]

    def loss(row: Measurement) -> float:
        return float(sum(s / f for s, f in zip(row.seconds, fastest, strict=True)))

    return min(rows, key=loss).tile


def measure(
    choices: Mapping[Product, Sequence[Tile]], target: CpuTarget, rounds: int = ROUNDS
) -> dict[Product, list[Measurement]]:
    """The time of every tile of every product, each the fastest of several rounds.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    tiles = list(dict.fromkeys(tile for some in choices.values() for tile in some))
    library = compile_cutout(tiles, target)
    found = {}
    for product, some in choices.items():
        operands = Operands(product, target.gemm_nr, target)
        times = [
            measure_rows(library, tiles, some, operands, rows, target.cores, rounds)
            for rows in product.rows
        ]
        columns = zip(*times, strict=True)
        found[product] = [
            Measurement(tile, tuple(s)) for tile, s in zip(some, columns, strict=True)
        ]
    return found


class Operands:
    """Random operands of a product: A, C, a bias, and copies of the packed B in turn.

    The rows of A are as far apart as `pad-rows` puts them for the tile of the target.
    """

    def __init__(self, product: Product, panel: int, target: CpuTarget) -> None:
        self.product = product
        most, columns, depth = max(product.rows), product.columns, product.depth
        padded = -(-columns // panel) * panel
        self.copies = max(1, WEIGHT_BYTES // (4 * padded * depth))
        random = np.random.default_rng(0)
        usual = tile_on(target, product)
        self.pitch = depth + (row_pad(depth, 4, usual, target.l1_bytes) if usual else 0)
        self.a = _aligned(random.standard_normal(most * self.pitch, np.float32))
        self.bias = _aligned(np.zeros(columns, np.float32))
        self.c = _aligned(np.zeros(most * columns, np.float32))
        self.stride = padded * depth
        self.b = _aligned(np.resize(random.standard_normal(1 << 16, np.float32), self.size))

    @property
    def size(self) -> int:
        """Elements of all copies; the kernel may ask for what lies behind the last."""
        return self.stride * self.copies


def measure_rows(
    library: ctypes.CDLL,
    tiles: Sequence[Tile],
    some: Sequence[Tile],
    operands: Operands,
    rows: int,
    threads: int,
    rounds: int,
) -> list[float]:
    """Seconds of a call with `rows` rows, for each of `some`, taking turns."""
    product = operands.product
    slices = -(-product.columns // 64)

    def run(tile: Tile, repeats: int) -> float:
        blocks = block_count(rows, tile.mc, slices, threads)
        sizes = (rows, product.columns, product.depth, blocks, threads, repeats)
        arrays = (operands.a, operands.b, operands.bias, operands.c)
        return float(
            library.dfc_measure(
                tiles.index(tile),
                *map(ctypes.c_long, (*sizes, operands.copies, operands.stride, operands.pitch)),
                *(ctypes.c_void_p(array.ctypes.data) for array in arrays),
            )
        )

    repeats = 1
    begun = time.perf_counter()
    while time.perf_counter() - begun < WARM_UP_S:  # threads find their cores, memory its pages
        repeats = max(1, int(RUN_S / run(some[0], 1)))
    times = [[run(tile, repeats) for tile in some] for _ in range(rounds)]
    return [float(s) for s in np.min(np.array(times), axis=0)]


def compile_cutout(
    tiles: Sequence[Tile], target: CpuTarget, defines: Sequence[str] = ()
) -> ctypes.CDLL:
    """The library of these tiles; ``dfc_measure(number, …)`` gives the seconds of a call.

    Raises:
        ToolchainError: if the compiler is missing or fails.
    """
    source, compiler = cutout_source(tiles), find_compiler()
    flags = (*compile_flags(target), *defines)
    key = digest(["cutout", str(compiler), kernels_digest(), *flags, source])

    def make(work: Path) -> None:
        (work / "cutout.cpp").write_text(source, encoding="utf-8")
        command = (*compiler.command, *flags, f"-I{KERNELS}", "-shared", "cutout.cpp")
        run_all([(*command, "-o", "cutout.so")], work)

    library = ctypes.CDLL(str(stored(key, make) / "cutout.so"))
    library.dfc_measure.restype = ctypes.c_double
    return library


def cutout_source(tiles: Sequence[Tile]) -> str:
    """C++ with one instance of the kernel for each tile, in the loops that DaCe generates."""
    cases = "\n".join(
        f"    case {number}: return measure<{tile.kc}, {tile.mc}>(p);"
        for number, tile in enumerate(tiles)
    )
    return _SOURCE.replace("@CASES@", cases)


_SOURCE = """// Tiles of the matrix product, measured.
#include <omp.h>
#include "cpu/gemm.h"

namespace {
struct Problem {
  long M, N, K, blocks, threads, repeats, copies, stride, pitch;
  const float *a, *b, *bias;
  float* c;
};

template <int kc, int mc>
double measure(const Problem& p) {
  using namespace dfc::gemm;
  const long slices = (p.N + WIDTH - 1) / WIDTH;
  const dfc::Epilogue epilogue{dfc::Bias<float>{p.bias}};
  double seconds = 0;
#pragma omp parallel num_threads(p.threads)
  {
#pragma omp barrier
    const double start = omp_get_wtime();
    for (long i = 0; i < p.repeats; ++i) {
      const float* b = p.b + i % p.copies * p.stride;
#pragma omp for collapse(2)
      for (long block = 0; block < p.blocks; ++block)
        for (long slice = 0; slice < slices; ++slice)
          packed_task<kc, mc>(block, p.blocks, slice, p.M, p.N, p.K, Rows<float>{p.a, p.pitch, 1},
                              b, p.c, p.N, epilogue);
    }
#pragma omp master
    seconds = (omp_get_wtime() - start) / p.repeats;
  }
  return seconds;
}
}  // namespace

extern "C" __attribute__((visibility("default"))) double dfc_measure(
    int tile, long M, long N, long K, long blocks, long threads, long repeats, long copies,
    long stride, long pitch, const float* a, const float* b, const float* bias, float* c) {
  const Problem p{M, N, K, blocks, threads, repeats, copies, stride, pitch, a, b, bias, c};
  switch (tile) {
@CASES@
  }
  return -1;
}
"""


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy on a cache line, with room behind it for what the kernel asks for ahead."""
    memory = np.zeros(array.nbytes + (1 << 16), np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(np.float32)
    copy[...] = array
    return copy


def _cpu() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
