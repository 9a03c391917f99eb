"""Interleaved timing: A B A B, so that a machine that drifts drifts for everybody."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

PAIRS = 15
"""The fewest rounds that a figure may rest on."""


@dataclass(frozen=True)
class Timing:
    """One contestant's times.

    Attributes:
        samples_s: seconds of each round, in order.
    """

    name: str
    samples_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return median(self.samples_s)

    @property
    def spread(self) -> float:
        """Distance between the quartiles, as a share of the median."""
        low, high = np.percentile(self.samples_s, (25, 75))
        return float(high - low) / self.median_s


@dataclass(frozen=True)
class Ratio:
    """How many times as long a peer takes, from the ratios of single rounds.

    Attributes:
        median: the middle ratio; above 1 means that the peer is slower.
        low: the lower quartile.
        high: the upper quartile.
    """

    median: float
    low: float
    high: float


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = PAIRS,
    warm_up: int = 2,
    pause_s: float = 0.02,
) -> tuple[Timing, ...]:
    """Runs every contestant once a round, after some rounds that do not count.

    Before each run there is a pause, in which the idle threads of the others stop spinning.

    Units:
        seconds of wall-clock time.
    """
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, run in contestants.items():
            time.sleep(pause_s)
            started = time.perf_counter()
            run()
            elapsed_s = time.perf_counter() - started
            if number >= warm_up:
                samples[name].append(elapsed_s)
    return tuple(Timing(name, tuple(values)) for name, values in samples.items())


def ratio(ours: Timing, peer: Timing) -> Ratio:
    """The peer's time over ours, round by round."""
    ratios = np.array(peer.samples_s) / np.array(ours.samples_s)
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high))
