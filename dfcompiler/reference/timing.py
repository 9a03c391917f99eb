"""Interleaved timing: A B A B, so that a machine that drifts drifts for everybody."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from dfcompiler.reference.ceilings import Rates
from dfcompiler.reference.worker import Worker

PAIRS = 15
"""The fewest rounds that a figure may rest on."""

PAUSE_S = 0.05
"""Before each turn: libgomp's threads spin for up to 20 ms after a call."""


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


@dataclass(frozen=True)
class Race:
    """What a number of rounds gave.

    Attributes:
        timings: of every contestant, in the order given.
        rates: the machine's ceilings, medians over rounds; measured next to the first contestant
            and in its process.
    """

    timings: tuple[Timing, ...]
    rates: Rates


def race(
    workers: Mapping[str, Worker],
    target: str = "cpu",
    rounds: int = PAIRS,
    pause_s: float = PAUSE_S,
) -> Race:
    """Gives every worker a turn a round, after one round that does not count.

    The workers must have inputs. Each round begins with another worker.
    """
    samples: dict[str, list[float]] = {name: [] for name in workers}
    measured: list[Rates] = []
    names = list(workers)
    for number in range(-1, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause_s)
            elapsed_s = workers[name].turn()
            rates = workers[name].rates(target) if name == names[0] else None
            if number >= 0:
                samples[name].append(elapsed_s)
                measured += [rates] if rates else []
    bf16 = [one.bf16_gflops for one in measured if one.bf16_gflops is not None]
    return Race(
        tuple(Timing(name, tuple(values)) for name, values in samples.items()),
        Rates(
            median(one.fma_gflops for one in measured),
            median(one.tile_gflops for one in measured),
            median(bf16) if bf16 else None,
        ),
    )


def ratio(ours: Timing, peer: Timing) -> Ratio:
    """The peer's time over ours, round by round."""
    ratios = np.array(peer.samples_s) / np.array(ours.samples_s)
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high))
