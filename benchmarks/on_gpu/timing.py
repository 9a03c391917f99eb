"""Seconds on a GPU: contestants take turns, timed by events, or by a clock where need be."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch

ROUNDS, WARM_UP = 15, 3
ROUND_S = 2e-3
"""Work of one round is repeated until it takes about so long."""
Call = Callable[[], object]
Timed = Callable[[int], float]
"""Seconds of one call, over so many of them."""


def take_turns(
    contestants: Mapping[str, Timed],
    attempt: Callable[[str, Callable[[], float]], float | None],
    rounds: int = ROUNDS,
) -> dict[str, list[float]]:
    """Seconds of each contestant in every round, after a warm-up; a round times each of them once.

    Args:
        contestants: by name.
        attempt: calls a function for a contestant; None if it fails, and this one is out then.
        rounds: how many.
    """
    repeats: dict[str, int] = {}
    for name, timed in contestants.items():
        for _ in range(WARM_UP):
            attempt(name, partial(timed, 1))
        once = attempt(name, partial(timed, 1))
        if once is not None:
            repeats[name] = max(1, min(200, int(ROUND_S / max(once, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in repeats}
    for _ in range(rounds):
        for name in tuple(times):
            found = attempt(name, partial(contestants[name], repeats[name]))
            if found is None:
                del times[name]
            else:
                times[name].append(found)
    return times


def by_events(call: Call) -> Timed:
    """Timed on the device, by events around the calls on torch's current stream."""

    def timed(repeats: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / repeats

    return timed


def by_clock(call: Call, wait: Callable[[object], object]) -> Timed:
    """Timed on the host until the result of the last call is there: for streams of others."""

    def timed(repeats: int) -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            last = call()
        wait(last)
        return (time.perf_counter() - begin) / repeats

    return timed


def captured(call: Call) -> Call:
    """The replay of a CUDA graph of one call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    replay: Call = graph.replay
    return replay


def measure_ceilings() -> dict[str, float]:
    """Bytes a second of a device copy, and flops a second of a large bf16 product."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = take_turns(
        {
            "copy": by_events(lambda: target.copy_(source)),
            "product": by_events(lambda: torch.matmul(a, b)),
        },
        lambda _, timed: timed(),
    )
    copy_s, product_s = (statistics.median(times[name]) for name in ("copy", "product"))
    return {
        "copy_bytes_per_s": 2.0 * source.nbytes / copy_s,
        "bf16_flops_per_s": 2.0 * 8192**3 / product_s,
    }
