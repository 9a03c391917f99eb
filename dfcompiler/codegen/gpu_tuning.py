"""`--tune` on a GPU: the fastest kernels of each product, remembered or measured on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dfcompiler.analysis.gpu_expansions import NATIVE, WGMMA_TILES
from dfcompiler.analysis.gpu_plans import Plan, expansion_of
from dfcompiler.analysis.gpu_tiles import TILES
from dfcompiler.analysis.tiling import Product
from dfcompiler.codegen.gpu_candidates import Candidate, Measurable, candidates_of
from dfcompiler.codegen.gpu_measuring import Measured, Timer
from dfcompiler.codegen.gpus import Gpu, find_driver
from dfcompiler.codegen.library import headers_digest
from dfcompiler.codegen.store import digest
from dfcompiler.codegen.toolchain import find_toolchain
from dfcompiler.codegen.tuning_database import Choice, Conditions, TuningDatabase
from dfcompiler.errors import DeviceError
from dfcompiler.target import CudaTarget

WORTH = 0.02
"""Share of the least time that a kernel other than the preferred one must save."""


@dataclass(frozen=True)
class Wanted:
    """The products of an operator, one for each number of rows that is measured.

    Attributes:
        one: the product, with any number of rows.
        ends: numbers of rows in ascending order, each the end of a range.
    """

    one: Measurable
    ends: tuple[int, ...]

    def at(self, rows: int) -> Measurable:
        """The product with so many rows."""
        return replace(self.one, product=replace(self.one.product, rows=rows))

    @property
    def key(self) -> Product:
        """The product as the database knows it."""
        product = self.one.product
        return Product(self.ends, product.columns, product.depth, product.element_bytes)


def device_of(target: CudaTarget) -> Gpu:
    """The GPU that measures for a target.

    Raises:
        DeviceError: if there is none, or it is another one.
    """
    driver = find_driver()
    gpus = driver.gpus if driver else ()
    if gpus and gpus[0].target == target.name:
        return gpus[0]
    found = f"the first GPU here is {gpus[0]}" if gpus else "this machine has none"
    raise DeviceError(
        f"tuning for {target.name} measures kernels on such a GPU; {found}",
        hint="compile with --tune on a machine that has one, or without it: the model chooses",
    )


def tune_on_gpu(
    products: Sequence[Wanted],
    target: CudaTarget,
    device: str,
    database: TuningDatabase,
    timer: Timer,
    report: Callable[[str], None],
) -> dict[Wanted, Choice]:
    """The fastest expansion and plans of each product: remembered, or measured and remembered.

    Args:
        products: of the program.
        target: what code is generated for.
        device: the name of the GPU that measures.
        database: what was measured before.
        timer: measures.
        report: is told of every candidate that failed, and of products that none serves.
    """
    found: dict[Wanted, Choice] = {}
    missing: list[Wanted] = []
    for wanted in dict.fromkeys(products):
        known = database.find(wanted.key, conditions_of(wanted.one, target, device))
        if isinstance(known, Choice):
            found[wanted] = known
        else:
            missing.append(wanted)
    shapes = [wanted.at(rows) for wanted in missing for rows in wanted.ends]
    choices = {one: candidates_of(one, target) for one in dict.fromkeys(shapes)}
    seconds = timer(choices) if choices else {}
    for sentence in _failures(seconds):
        report(sentence)
    for wanted in missing:
        choice = fastest(wanted, [seconds[wanted.at(rows)] for rows in wanted.ends])
        if choice is None:
            report(f"{_words(wanted.one)}: no kernel was measured; the model's choice stays")
            continue
        found[wanted] = choice
        database.add({wanted.key: choice}, conditions_of(wanted.one, target, device))
    return found


def _failures(seconds: Mapping[Measurable, Measured]) -> Iterator[str]:
    """A sentence for each expansion and each reason why some of its kernels have no time."""
    found: dict[tuple[str, str], list[str]] = {}
    for one, times in seconds.items():
        for candidate, value in times.items():
            if isinstance(value, str):
                kernel = f"{candidate} of {_words(one)}"
                found.setdefault((candidate.expansion, value), []).append(kernel)
    for (_, reason), (first, *more) in found.items():
        others = f" and {len(more)} more kernels were" if more else " was"
        yield f"{first}{others} not measured: {reason}"


def conditions_of(one: Measurable, target: CudaTarget, device: str) -> Conditions:
    """What measurements of a product hold for, besides its rows, columns and depth."""
    epilogue = one.epilogue
    stages = "+".join(
        stage
        for stage in ("bias" if epilogue.bias else "", epilogue.activation, epilogue.residual)
        if stage not in ("", "none")
    )
    kernel = (
        f"gpu product {one.dtype} b along {one.along} batch {one.product.batch} {stages}".rstrip()
    )
    tools = find_toolchain(target)
    kernels = (headers_digest(), str(TILES), str(WGMMA_TILES), *target.libraries)
    version = digest([*kernels, str(tools), *tools.compile_flags])[:16]
    return Conditions(kernel, f"sm_{target.arch}", device, target.multiprocessors, version)


def fastest(wanted: Wanted, seconds: Sequence[Measured]) -> Choice | None:
    """The expansion and the plans that lose least over all numbers of rows; None: none measured.

    Besides the native kernels a product has those of one expansion; one without tiles serves all
    rows. A plan reaches as far as another one does not save `WORTH`.

    Args:
        wanted: the product.
        seconds: for each number of rows, those of the candidates.
    """
    times = [
        {one: value for one, value in some.items() if isinstance(value, float)} for some in seconds
    ]
    name = _fastest_expansion(times)
    if name is None:
        return None
    plans: list[Plan] = []
    for rows, some in zip(wanted.ends, times, strict=True):
        mine = _allowed(some, name)
        best = min(mine, key=lambda one: mine[one])
        if best.plan is None:
            return Choice(name, ())
        if plans:
            before = replace(plans[-1], most_rows=0)
            now = next((s for one, s in mine.items() if one.plan == before), None)
            if now is not None and now <= (1 + WORTH) * mine[best]:
                plans[-1] = replace(before, most_rows=rows)
                continue
        plans.append(replace(best.plan, most_rows=rows))
    plans[-1] = replace(plans[-1], most_rows=0)
    return Choice(expansion_of(plans), tuple(plan.attribute for plan in plans))


def _fastest_expansion(times: Sequence[Mapping[Candidate, float]]) -> str | None:
    """The expansion that loses least against the fastest, native where it is `WORTH` no other."""
    names = dict.fromkeys(one.expansion for some in times for one in some)
    losses: dict[str, float] = {}
    for name in sorted(names, key=lambda name: name != NATIVE):
        allowed = [_allowed(some, name) for some in times]
        if all(allowed):
            losses[name] = sum(
                min(mine.values()) / min(some.values())
                for mine, some in zip(allowed, times, strict=True)
            )
    least = min(losses.values(), default=0.0)
    return next((name for name, loss in losses.items() if loss <= (1 + WORTH) * least), None)


def _allowed(times: Mapping[Candidate, float], name: str) -> dict[Candidate, float]:
    """The candidates of an expansion, and the native ones where it has tiles for some rows only."""
    library = any(one.plan is None and one.expansion == name for one in times)
    names = (name,) if library else (NATIVE, name)
    return {one: value for one, value in times.items() if one.expansion in names}


def _words(one: Measurable) -> str:
    product = one.product
    batch = f"{product.batch} × " if product.batch > 1 else ""
    return f"the product {batch}{product.rows} × {product.columns} × {product.depth} of {one.dtype}"
