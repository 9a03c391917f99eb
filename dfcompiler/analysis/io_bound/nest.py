"""Loop nests over arrays, written as statements: ``C[i,j] += A[i,k] * B[k,j]``.

A nest is projective: every index of an array is a loop, plus a constant. `footprint` turns a
statement's accesses into the terms of a posynomial in the tile sizes: what a tile must find in
fast memory.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import mul

import sympy

from dfcompiler.errors import UsageError

_ACCESS = re.compile(r"(\w+)\[([^\]]*)\]")
_INDEX = re.compile(r"^([A-Za-z_]\w*)\s*(?:([+-])\s*(\d+))?$")


@dataclass(frozen=True)
class Access:
    """One reference to an array: the loop of each axis, and the constant added to it."""

    array: str
    loops: tuple[str, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """`coefficient` · Π of the tile sizes of `loops`: words of `array` that a tile needs."""

    array: str
    loops: frozenset[str]
    coefficient: int = 1


@dataclass(frozen=True)
class Statement:
    """A statement in a nest.

    Attributes:
        loops: the extent of every loop, an integer or a sympy expression.
        write: what it writes.
        reads: what it reads; a sum that is added to reads itself.
        volume: how often it runs; the product of the extents, or less for a triangular nest.
    """

    loops: Mapping[str, sympy.Expr]
    write: Access
    reads: tuple[Access, ...]
    volume: sympy.Expr

    @property
    def produces(self) -> bool:
        """Whether it makes the array that it writes from others alone."""
        return all(read.array != self.write.array for read in self.reads)


def statement(
    text: str, loops: Mapping[str, sympy.Expr | int], volume: sympy.Expr | None = None
) -> Statement:
    """The statement that `text` says: ``A[i] = f(B[i-1], B[i+1])`` or ``C[i,j] += A[i,k]``.

    Raises:
        UsageError: if an index is not a loop plus a constant.
    """
    found = [_access(name, indices, loops) for name, indices in _ACCESS.findall(text)]
    if not found or "=" not in text:
        raise UsageError(f"{text!r} is no statement; expected such as C[i,j] += A[i,k] * B[k,j]")
    reads = tuple(found[1:])
    if "+=" in text or "-=" in text:
        reads = (found[0], *reads)
    extents = {name: sympy.sympify(extent) for name, extent in loops.items()}
    whole = reduce(mul, extents.values(), sympy.Integer(1))
    return Statement(extents, found[0], reads, whole if volume is None else volume)


def _access(array: str, indices: str, loops: Mapping[str, object]) -> Access:
    names, offsets = [], []
    for index in filter(None, (part.strip() for part in indices.split(","))):
        match = _INDEX.match(index)
        if match is None or match[1] not in loops:
            raise UsageError(
                f"the index {index!r} of {array} is not a loop plus a constant",
                hint=f"loops are: {', '.join(loops)}",
            )
        names.append(match[1])
        offsets.append(int(f"{match[2] or '+'}{match[3] or 0}"))
    return Access(array, tuple(names), tuple(offsets))


def footprint(one: Statement) -> tuple[Term, ...]:
    """What a tile of the statement must find in fast memory, in leading order.

    References to one array through the same loops overlap, up to shifts. If the statement writes
    the array as well, what a tile reads from outside it lies on its faces: n·Π of the other tile
    sizes for a loop with n distinct shifts besides one. References through different loops are
    taken as disjoint.

    Source:
        Kwasniewski et al., "Pebbles, Graphs, and a Pinch of Combinatorics", SPAA 2021: lemma 3
        and corollary 1.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Access]] = defaultdict(list)
    for read in one.reads:
        groups[read.array, read.loops].append(read)
    terms: list[Term] = []
    for (array, loops), reads in groups.items():
        own = one.write.array == array and one.write.loops == loops
        members = [*reads, one.write] if own else reads
        shifts = [len({m.offsets[axis] for m in members}) - 1 for axis in range(len(loops))]
        if not own or not any(shifts):
            terms.append(Term(array, frozenset(loops)))
            continue
        terms += [
            Term(array, frozenset(loops) - {loop}, shift)
            for loop, shift in zip(loops, shifts, strict=True)
            if shift
        ]
    return tuple(terms)
