"""Lower bounds of loop nests from the largest tiles that a fast memory serves.

A tile whose footprint is X words does at most χ(X) operations; a schedule that moves Q words with
S of fast memory consists of Q/(X − S) such tiles. So Q ≥ |V|/ρ with ρ = min χ(X)/(X − S). Of
several statements, each has the ρ of the most intense group of statements that it can be fused
with: Q ≥ Σ |V|/ρ.

Source:
    Kwasniewski et al., "Pebbles, Graphs, and a Pinch of Combinatorics: Towards Tight I/O Lower
    Bounds for Statically Analyzable Programs", SPAA 2021, arXiv 2105.07203: theorem 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import ceil, exp, log

import numpy as np
import sympy
from scipy.optimize import minimize

from dfcompiler.analysis.io_bound.geometric import growth
from dfcompiler.analysis.io_bound.nest import Statement, Term, footprint

SOAP = "Kwasniewski et al., SPAA 2021 (SOAP): |V|/ρ"

WORDS = sympy.Symbol("S", positive=True)
"""The fast memory, in words."""


def bound(statements: Sequence[Statement]) -> sympy.Expr | None:
    """Words that any schedule of the statements reads, in leading order; None: not solved.

    Symbolic in the extents and in `WORDS`.
    """
    if len(statements) > 6:
        return None  # the groups are all subsets
    best: dict[int, sympy.Expr] = {}
    for group in _groups(len(statements)):
        found = intensity([statements[i] for i in group])
        if found is None:
            if len(group) == 1 or _connected([statements[i] for i in group]):
                return None
            continue
        for i in group:
            best[i] = max(best.get(i, found), found, key=_far)
    total = sum((one.volume / best[i] for i, one in enumerate(statements)), start=sympy.Integer(0))
    return sympy.factor(sympy.powsimp(sympy.simplify(total), force=True))


def intensity(group: Sequence[Statement]) -> sympy.Expr | None:
    """ρ of statements in one tile: operations per word read; None: not connected or not solved."""
    if len(group) > 1 and not _connected(group):
        return None
    objective, terms = fused_footprint(group)
    found = growth(objective, terms)
    return None if found is None else found.intensity(WORDS)


def fused_footprint(group: Sequence[Statement]) -> tuple[list[frozenset[str]], list[Term]]:
    """The loops of each statement, and the words of a tile of all of them.

    Loops that index the same axis of a shared array have the same tile size. An array that one of
    the statements produces from others is no input of the tile.
    """
    names = _unified(group)
    made = {one.write.array for one in group if one.produces}
    terms: dict[Term, None] = {}
    for number, one in enumerate(group):
        for term in footprint(one):
            if term.array not in made:
                loops = frozenset(names[number, loop] for loop in term.loops)
                terms[Term(term.array, loops, term.coefficient)] = None
    objective = [frozenset(names[n, loop] for loop in one.loops) for n, one in enumerate(group)]
    return objective, list(terms)


def _unified(group: Sequence[Statement]) -> dict[tuple[int, str], str]:
    """A name for every loop of every statement; loops that walk the same axis get the same."""
    leader = {(n, loop): (n, loop) for n, one in enumerate(group) for loop in one.loops}

    def find(key: tuple[int, str]) -> tuple[int, str]:
        while leader[key] != key:
            key = leader[key]
        return key

    seen: dict[tuple[str, int], tuple[int, str]] = {}
    for number, one in enumerate(group):
        own: set[str] = set()
        for access in (one.write, *one.reads):
            if access.array in own:
                continue  # further references through other loops are disjoint
            own.add(access.array)
            for axis, loop in enumerate(access.loops):
                here = (number, loop)
                leader[find(here)] = find(seen.setdefault((access.array, axis), here))
    return {key: "{}.{}".format(*find(key)) for key in leader}


def _groups(count: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, count + 1):
        yield from combinations(range(count), size)


def _connected(group: Sequence[Statement]) -> bool:
    """Whether the statements hang together by arrays that they share."""
    arrays = [{a.array for a in (one.write, *one.reads)} for one in group]
    reached, rest = arrays[0], arrays[1:]
    while rest:
        touching = [found for found in rest if found & reached]
        if not touching:
            return False
        reached = reached.union(*touching)
        rest = [found for found in rest if found not in touching]
    return True


def _far(expression: sympy.Expr) -> float:
    return float(expression.subs(WORDS, 10**12))


def finite_words(one: Statement, extents: Mapping[str, int], words: int) -> int:
    """Words that any schedule of one statement reads at these sizes, lower-order terms included.

    The largest g·(X − S) such that fewer than |V|/g operations fit a tile of X words; tiles are
    no larger than the loops. For statements whose references to one array use the same loops and
    no shifts, as for products, this is a bound without any leading-order approximation.
    """
    values = {sympy.Symbol(name): size for name, size in extents.items()}
    names = list(one.loops)
    limits = np.log([float(one.loops[name].subs(values)) for name in names])
    volume, terms = float(one.volume.subs(values)), footprint(one)
    spans = np.array([[float(name in term.loops) for name in names] for term in terms])
    costs = np.log([float(term.coefficient) for term in terms])
    found, segments = 0, 1
    while True:
        least = _least_footprint(log(volume / segments), spans, costs, limits)
        value = segments * (ceil(least * (1 - 1e-9)) - 1 - words)
        if value < found or volume / segments < 2:
            return found
        found = max(found, value)
        segments = max(segments + 1, int(segments * 1.1))


def _least_footprint(
    goal: float, spans: np.ndarray, costs: np.ndarray, limits: np.ndarray
) -> float:
    """The fewest words with which a tile of e^goal operations gets by."""
    total = float(limits.sum())
    if goal >= total:
        return float(np.exp(spans @ limits + costs).sum())
    scale = goal / total
    solved = minimize(
        lambda y: float(np.log(np.exp(spans @ y + costs).sum())),
        limits * scale,
        method="SLSQP",
        bounds=[(0.0, float(limit)) for limit in limits],
        constraints={"type": "ineq", "fun": lambda y: float(y.sum()) - goal},
        options={"ftol": 1e-13, "maxiter": 300},
    )
    return exp(float(solved.fun))
