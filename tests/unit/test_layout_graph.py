"""The configuration graph finds what trying everything finds, residual connections included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfcompiler.analysis import layout_graph
from dfcompiler.analysis.layout_graph import Operator, Place, Problem, Solution, Way, solve
from dfcompiler.errors import UnsupportedError

PLACES = ("a", "b", "c")


def tried(problem: Problem) -> float:
    """The fewest seconds over all combinations of ways and of sources of conversions."""
    return min(_seconds(problem, ways) for ways in product(*(op.ways for op in problem.operators)))


def _seconds(problem: Problem, ways: tuple[Way, ...]) -> float:
    copies: dict[str, set[Place]] = {name: {place} for name, place in problem.given.items()}
    total = 0.0

    def need(name: str, place: Place) -> float:
        if place in copies[name]:
            return 0.0
        cost = min(problem.conversion_s(name, have, place) for have in copies[name])
        copies[name].add(place)
        return cost

    for operator, way in zip(problem.operators, ways, strict=True):
        for name, place in zip(operator.operands, way.operands, strict=True):
            total += need(name, place)
        total += way.seconds
        copies.setdefault(operator.result, set()).add(way.result)
    return total + sum(need(name, place) for name, place in problem.wanted.items())


def seconds_of(solution: Solution, problem: Problem) -> float:
    return _seconds(problem, tuple(step.way for step in solution.steps))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    number = draw(st.integers(1, 5))
    places = PLACES[: draw(st.integers(2, 3))]
    seconds = st.integers(0, 20).map(float)
    names, operators = ["x"], []
    for index in range(number):
        count = draw(st.integers(1, min(2, len(names))))
        operands = tuple(draw(st.permutations(names))[:count])
        ways = tuple(
            Way(
                tuple(draw(st.sampled_from(places)) for _ in operands),
                draw(st.sampled_from(places)),
                draw(seconds),
            )
            for _ in range(draw(st.integers(1, 3)))
        )
        operators.append(Operator(f"v{index}", operands, ways))
        names.append(f"v{index}")
    costs = {(p, q): draw(seconds) for p in places for q in places}
    # No detour is cheaper than the direct conversion, as for copies of memory.
    for via, p, q in product(places, places, places):
        costs[p, q] = min(costs[p, q], costs[p, via] + costs[via, q])
    wanted = {draw(st.sampled_from(names)): draw(st.sampled_from(places)), names[-1]: places[0]}
    return Problem(tuple(operators), {"x": places[0]}, wanted, lambda n, p, q: costs[p, q])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(problem=problems())
def test_the_graph_finds_what_trying_everything_finds(problem: Problem) -> None:
    solution = solve(problem)
    assert solution.seconds == tried(problem)
    assert seconds_of(solution, problem) == solution.seconds
    for position, step in enumerate(solution.steps):
        assert {step.way, *dict(step.others)} == set(problem.operators[position].ways)
        for way, price in step.others:
            with_it = (
                _seconds(problem, ways)
                for ways in product(*(op.ways for op in problem.operators))
                if ways[position] == way
            )
            assert min(with_it) - solution.seconds == price


def residual(length: int) -> Problem:
    """A block around which x goes: the kernels in the block are faster with layout b."""
    fast = (Way(("a",), "a", 5.0), Way(("b",), "b", 3.0))
    middle = tuple(Operator(f"v{i}", (f"v{i - 1}" if i else "x",), fast) for i in range(length))
    same = tuple(Way((place, place), place, 1.0) for place in "ab")
    last = Operator("y", (f"v{length - 1}", "x"), same)
    return Problem((*middle, last), {"x": "a"}, {"y": "a"}, lambda n, p, q: 0.0 if p == q else 4.0)


def without_residual(problem: Problem) -> list[Way]:
    """What shortest paths find when the edges of residual connections are dropped."""
    *middle, last = problem.operators
    cut = Operator(
        last.result,
        last.operands[:1],
        tuple(Way(way.operands[:1], way.result, way.seconds) for way in last.ways),
    )
    found = solve(Problem((*middle, cut), problem.given, problem.wanted, problem.conversion_s))
    places = [way.operands[0] for way in last.ways]
    chosen = [step.way for step in found.steps]
    return [*chosen[:-1], last.ways[places.index(chosen[-1].operands[0])]]


@pytest.mark.parametrize("length", [1, 4, 5, 9])
def test_a_residual_connection_that_does_not_matter(length: int) -> None:
    problem = residual(length)
    assert _seconds(problem, tuple(without_residual(problem))) == tried(problem)


def test_dropping_residual_edges_is_wrong() -> None:
    """The value x1 comes in b at no cost; what goes around the block needs it in a."""
    to_a = Operator("x1", ("x",), (Way(("a",), "a", 1.0), Way(("a",), "b", 0.0)))
    block = Operator("h", ("x1",), (Way(("b",), "a", 3.0), Way(("a",), "a", 3.5)))
    join = Operator("y", ("h", "x1"), (Way(("a", "a"), "a", 1.0),))
    problem = Problem(
        (to_a, block, join), {"x": "a"}, {"y": "a"}, lambda n, p, q: 0.0 if p == q else 4.0
    )
    dropped = without_residual(problem)
    assert [way.result for way in dropped] == ["b", "a", "a"]
    assert _seconds(problem, tuple(dropped)) == 8.0
    exact = solve(problem)
    assert exact.seconds == tried(problem) == 5.5
    assert exact.steps[0].way.result == "a"
    assert [price for _, price in exact.steps[0].others] == [2.5]


def test_conversions_are_explicit_and_shared() -> None:
    two = tuple(Operator(f"y{i}", ("x",), (Way(("b",), "a", 1.0),)) for i in range(2))
    problem = Problem(two, {"x": "a"}, {"y0": "a", "y1": "b"}, lambda n, p, q: 7.0)
    solution = solve(problem)
    assert [len(step.conversions) for step in solution.steps] == [1, 0]
    assert [(c.value, c.source, c.target) for c in solution.last] == [("y1", "a", "b")]
    assert solution.seconds == 7 + 1 + 1 + 7


def chains(count: int) -> Iterator[Operator]:
    """Values that all stay alive, each in any of three layouts."""
    for i in range(count):
        yield Operator(f"v{i}", ("x",), tuple(Way(("a",), place, 1.0) for place in PLACES))


def test_graphs_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_graph, "MOST_NODES", 1000)
    operators = tuple(chains(9))
    wanted: dict[str, Place] = {op.result: "a" for op in operators}
    with pytest.raises(UnsupportedError, match="configurations"):
        solve(Problem(operators, {"x": "a"}, wanted, lambda n, p, q: 1.0))
