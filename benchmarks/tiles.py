"""The tile that the model chooses against the best of an exhaustive search, by measurement.

Every register tile (mr, nr), depth kc and number of row blocks mc that the kernel can be made for
is measured on its own: all of them first, then the fastest ones and the model's again, taking
turns. The figure is the chosen tile's time over that of the best: the median of the ratios in a
turn, because whole milliseconds of a shared machine run at another speed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil
from statistics import median
from typing import Any

# Rows; columns and depth of the products of BERT-base's and MiniLM's layers.
ROWS = (16, 128, 1024)
MATRICES = ((768, 768), (3072, 768), (768, 3072), (384, 384), (1536, 384), (384, 1536))
REGISTER_TILES = {
    "x86-64-v4": ((6, 64), (4, 64), (9, 48), (14, 32)),
    "x86-64-v3": ((6, 16), (4, 16), (12, 8)),
    "generic": ((4, 8), (3, 8)),
}
DEPTHS = (64, 128, 256, 384)
BLOCKS = (1, 2, 4, 9)
FINALISTS = 5
TURNS = 31
TURN_S = 2e-3
"""Of work for a tile in a turn, and two calls at least."""


def main() -> None:
    """Measures every shape and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--build-only", action="store_true", help="compile, no timing")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read when libgomp is loaded

    from benchmarks import record
    from dfcompiler.codegen import tuning
    from dfcompiler.target import parse_target

    target = parse_target("cpu")
    libraries = {tile: _library(*tile, target) for tile in REGISTER_TILES[target.isa]}
    if options.build_only:
        return
    tuning.WARM_UP_S = 0.03
    cases = []
    for columns, depth in MATRICES:
        for rows in options.rows:
            cases.append(_case(rows, columns, depth, libraries, target, options.threads))
            print(_line(cases[-1]), flush=True)
        _operands.cache_clear()
    cases = [*_earlier(options.rows), *cases]
    data = {"threads": options.threads, "machine": record.machine(), "cases": cases}
    record.write("tiles", data, _text(data))


def _earlier(rows: Sequence[int]) -> list[Any]:
    """The cases of the last result with other rows than those that were measured now."""
    from benchmarks import record

    path = record.RESULTS / "tiles.json"
    if set(rows) == set(ROWS) or not path.is_file():
        return []
    return [case for case in json.loads(path.read_text())["cases"] if case["shape"][0] not in rows]


def _grid(mr: int, nr: int) -> list[Any]:
    """All tiles of one register tile, for any of the rows."""
    from dfcompiler.analysis.tiling import Tile

    blocks = {ceil(ceil(rows / mr) / n) * mr for rows in ROWS for n in BLOCKS}
    return [Tile(mr, nr, kc, mc) for kc in DEPTHS for mc in sorted(blocks) if mc >= 2 * mr]


def _library(mr: int, nr: int, target: Any) -> ctypes.CDLL:
    from dfcompiler.codegen.tuning import compile_cutout

    defines = (f"-DDFC_GEMM_MR={mr}", f"-DDFC_GEMM_NR={nr}")
    return compile_cutout(_grid(mr, nr), target, defines)


def _case(
    rows: int, columns: int, depth: int, libraries: Mapping[Any, Any], target: Any, threads: int
) -> dict[str, Any]:
    """One product: the model's tile, the best one, and both times."""
    from dfcompiler.analysis.tiling import Product, tile_on

    product = Product((rows,), columns, depth)
    model = tile_on(target, product)
    assert model is not None
    first: dict[Any, float] = {}
    for (mr, nr), library in libraries.items():
        some = [tile for tile in _grid(mr, nr) if _is_distinct(tile, rows, depth)]
        first.update(_measured(library, (mr, nr), some, product, threads, rounds=2))
    chosen = _same(model, [t for t in first if (t.mr, t.nr) == (model.mr, model.nr)], rows)
    finalists = [*sorted(first, key=lambda tile: first[tile])[:FINALISTS], chosen]
    rounds = max(2, ceil(TURN_S / first[chosen]))
    times: dict[Any, list[float]] = {tile: [] for tile in finalists}
    for _ in range(TURNS):
        for tile, found in times.items():
            key = (tile.mr, tile.nr)
            found.extend(_measured(libraries[key], key, [tile], product, threads, rounds).values())
    behind = {
        tile: median(ours / other for ours, other in zip(times[chosen], found, strict=True))
        for tile, found in times.items()
    }
    best = max(behind, key=lambda tile: behind[tile])
    return {
        "shape": (rows, columns, depth),
        "tiles": len(first),
        "chosen": chosen.attribute,
        "chosen_us": median(times[chosen]) * 1e6,
        "best": best.attribute,
        "best_us": median(times[best]) * 1e6,
        "loss": behind[best] - 1,
    }


def _is_distinct(tile: Any, rows: int, depth: int) -> bool:
    """Whether a tile does anything else here than a smaller one."""
    tallest = ceil(rows / tile.mr) * tile.mr
    return bool(tile.mc <= tallest and (tile.kc <= depth or tile.kc == DEPTHS[0]))


def _same(model: Any, tiles: Sequence[Any], rows: int) -> Any:
    """The measured tile that splits rows and depth as the model's does."""
    blocks = ceil(rows / model.mc)
    return min(tiles, key=lambda t: (abs(ceil(rows / t.mc) - blocks), abs(t.kc - model.kc)))


@cache
def _operands(product: Any, panel: int) -> Any:
    from dfcompiler.codegen.tuning import Operands
    from dfcompiler.target import parse_target

    return Operands(product, panel, parse_target("cpu"))


def _measured(
    library: Any, key: tuple[int, int], some: Sequence[Any], product: Any, threads: int, rounds: int
) -> dict[Any, float]:
    from dfcompiler.codegen.tuning import measure_rows

    operands = _operands(product, key[1])
    grid = _grid(*key)
    rows = product.rows[0]
    found = measure_rows(library, grid, some, operands, rows, threads, rounds)
    return dict(zip(some, found, strict=True))


def _line(case: Mapping[str, Any]) -> str:
    return (
        f"{case['shape']}: chosen {case['chosen']} {case['chosen_us']:.1f} us, best of "
        f"{case['tiles']} {case['best']} {case['best_us']:.1f} us, loss {case['loss']:.1%}"
    )


def _text(data: Mapping[str, Any]) -> str:
    from benchmarks import record

    header = ("M × N × K", "tiles", "chosen", "µs", "best", "µs", "loss")
    rows = [
        (
            " × ".join(map(str, case["shape"])),
            case["tiles"],
            "×".join(map(str, case["chosen"])),
            f"{case['chosen_us']:.1f}",
            "×".join(map(str, case["best"])),
            f"{case['best_us']:.1f}",
            f"{case['loss']:.1%}",
        )
        for case in data["cases"]
    ]
    worst = max(case["loss"] for case in data["cases"])
    return (
        "# Tiles: chosen by the model against the best of all\n\n"
        f"{record.machine_line(data['machine'])}\n"
        f"{data['threads']} threads; mr × nr × kc × mc; every tile alone, the best ones again in "
        f"{TURNS} turns with the chosen one; medians. Greatest loss: **{worst:.1%}**.\n\n"
        + record.markdown_table(header, rows)
    )


if __name__ == "__main__":
    main()
