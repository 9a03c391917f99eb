"""Choosing the layouts of all values of a program together, exactly.

Every operator can be done in several ways, each with a layout for every operand and one for its
result. A value that exists in one layout can be converted to another, which leaves both. The
configuration graph has a node for each position in the order of the operators and each set of
copies of values that were made before and are still read later; an edge does one operator in one
way, conversions included. The cheapest way to do them all is a shortest path.

    position i                             position i + 1
    {x: row-major, r: permuted}  ──way──▶  {r: permuted, y: row-major}

Because every value that is read later is part of a node, branches and residual connections are
treated exactly. arXiv 2007.00072, from which the graph comes, drops the edges of residual
connections and finds paths of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import networkx as nx

from dfcompiler.errors import UnsupportedError

Place: TypeAlias = Hashable
"""A layout; the graph only compares them."""
Copies: TypeAlias = frozenset[tuple[str, Place]]

MOST_NODES = 200_000


@dataclass(frozen=True)
class Way:
    """One way to do an operator: the layout of each operand, that of the result, and seconds."""

    operands: tuple[Place, ...]
    result: Place
    seconds: float


@dataclass(frozen=True)
class Operator:
    """An operator with everything that it can be.

    Attributes:
        result: the value that it makes.
        operands: the values that it reads; none may be read twice under two names.
        ways: at least one.
    """

    result: str
    operands: tuple[str, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Problem:
    """Operators in order, and what is fixed around them.

    Attributes:
        operators: in an order in which every value is made before it is read.
        given: values that exist before, with their layouts.
        wanted: layouts in which values must exist after the last operator.
        conversion_s: seconds of converting a value from one layout to another.
    """

    operators: tuple[Operator, ...]
    given: Mapping[str, Place]
    wanted: Mapping[str, Place]
    conversion_s: Callable[[str, Place, Place], float]


@dataclass(frozen=True)
class Conversion:
    """A copy of a value in another layout, made before an operator, or after the last one."""

    value: str
    source: Place
    target: Place


@dataclass(frozen=True)
class Step:
    """What was decided for one operator.

    Attributes:
        way: how it is done.
        conversions: copies made just before it.
        others: the other ways, the best first, each with the seconds by which the best solution
            with it is dearer than the best one.
    """

    way: Way
    conversions: tuple[Conversion, ...]
    others: tuple[tuple[Way, float], ...]


@dataclass(frozen=True)
class Solution:
    """The cheapest way to do all operators.

    Attributes:
        seconds: of all operators and conversions.
        steps: one for each operator.
        last: conversions after the last operator.
    """

    seconds: float
    steps: tuple[Step, ...]
    last: tuple[Conversion, ...]


def solve(problem: Problem) -> Solution:
    """The solution with the fewest seconds; of equals, the one with ways that come first.

    Raises:
        UnsupportedError: if the graph is too large.
    """
    graph, start, end = configuration_graph(problem)
    before: dict[Any, float] = nx.single_source_dijkstra_path_length(graph, start)
    behind: dict[Any, float] = nx.single_source_dijkstra_path_length(graph.reverse(copy=False), end)
    best = before[end]
    path = nx.dijkstra_path(graph, start, end)
    chosen = [
        min(graph[a][b].values(), key=lambda edge: (edge["weight"], edge["number"]))
        for a, b in pairwise(path)
    ]
    totals: list[dict[Way, float]] = [{} for _ in problem.operators]
    for a, b, edge in graph.edges(data=True):
        position, way = a[0], edge["way"]
        if way is None or way == chosen[position]["way"] or a not in before or b not in behind:
            continue
        total = before[a] + edge["weight"] + behind[b]
        totals[position][way] = min(total, totals[position].get(way, total))
    steps = []
    for found, edge in zip(totals, chosen, strict=False):
        prices = ((way, total - best) for way, total in found.items())
        others = tuple(sorted(prices, key=lambda pair: pair[1]))
        steps.append(Step(edge["way"], edge["conversions"], others))
    return Solution(best, tuple(steps), chosen[-1]["conversions"])


def configuration_graph(problem: Problem) -> tuple[Any, Any, Any]:
    """The graph, its first node and its last one.

    Raises:
        UnsupportedError: if it is too large.
    """
    last = _last_reads(problem)
    # What was there before stays there: in the nodes it would make each as large as the program.
    given = dict(problem.given)
    graph = nx.MultiDiGraph()
    start: tuple[int, Copies] = (0, frozenset())
    graph.add_node(start)
    level: set[Copies] = {frozenset()}
    for position, operator in enumerate(problem.operators):
        following: set[Copies] = set()
        is_read = last.get(operator.result, -1) > position
        for copies in level:
            for number, way in enumerate(operator.ways):
                have, seconds, made = _converted(
                    copies, operator.operands, way.operands, given, problem
                )
                kept = frozenset(
                    (name, place)
                    for name, place in have
                    if name != operator.result and last[name] > position
                )
                if is_read:
                    kept |= {(operator.result, way.result)}
                following.add(kept)
                graph.add_edge(
                    (position, copies),
                    (position + 1, kept),
                    weight=seconds + way.seconds,
                    way=way,
                    number=number,
                    conversions=made,
                )
        given.pop(operator.result, None)
        level = following
        if graph.number_of_nodes() > MOST_NODES:
            raise UnsupportedError(
                f"more than {MOST_NODES} configurations of layouts at {operator.result}"
            )
    end: tuple[int, Copies] = (len(problem.operators) + 1, frozenset())
    names, places = tuple(problem.wanted), tuple(problem.wanted.values())
    for copies in level:
        _, seconds, made = _converted(copies, names, places, given, problem)
        node = (len(problem.operators), copies)
        graph.add_edge(node, end, weight=seconds, way=None, number=0, conversions=made)
    return graph, start, end


def _last_reads(problem: Problem) -> dict[str, int]:
    """The position of the last operator that reads each value; behind all for wanted ones."""
    found = {name: i for i, operator in enumerate(problem.operators) for name in operator.operands}
    return found | dict.fromkeys(problem.wanted, len(problem.operators))


def _converted(
    copies: Copies,
    names: Sequence[str],
    places: Sequence[Place],
    given: Mapping[str, Place],
    problem: Problem,
) -> tuple[Copies, float, tuple[Conversion, ...]]:
    """The copies once every value exists in its place, the seconds, and the conversions made.

    Args:
        copies: of values that operators made, and those that conversions made.
        names: of the values that are needed.
        places: where they are needed.
        given: values that exist besides, each in one layout.
        problem: has the prices.
    """
    made: list[Conversion] = []
    seconds = 0.0
    for name, place in dict.fromkeys(zip(names, places, strict=True)):
        if (name, place) in copies or (name in given and given[name] == place):
            continue
        there = {have for n, have in copies if n == name}
        sources = sorted(there | ({given[name]} if name in given else set()), key=str)
        costs = [(problem.conversion_s(name, have, place), i) for i, have in enumerate(sources)]
        cost, index = min(costs)
        made.append(Conversion(name, sources[index], place))
        copies, seconds = copies | {(name, place)}, seconds + cost
    return copies, seconds, tuple(made)
