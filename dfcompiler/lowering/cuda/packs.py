"""Element-wise maps whose threads take several neighbours at a time (`kernels/cuda/pack.h`).

before      for _i0, _i1:  _o = f(_a0, _a1)          _a0 = x[_i0, _i1], _a1 = bias[_i1]
after       for _pack:     load V elements of x
                           for _e < V:  _o = f(pack[_e], bias[(V·_pack + _e) % extent])
                           store V elements of y
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
from dace.symbolic import int_floor

from dfcompiler.lowering.context import Context
from dfcompiler.lowering.cuda.threads import LOAD_BYTES
from dfcompiler.lowering.maps import Access, MapBody, whole
from dfcompiler.lowering.symbolic import ceil_div, is_static, symbol, text
from dfcompiler.lowering.views import strides

ELEMENT, _PACK = "_element", "_pack"
# Threads of a multiprocessor that hide each other's latency: short arrays take smaller packs.
_BUSY_THREADS = 512


@dataclass(frozen=True)
class _Place:
    """Where an access goes.

    Attributes:
        access: the access.
        offset: elements behind the first one of its array, by the flat position.
        follows: whether that is the flat position itself, and something that it does not change.
    """

    access: Access
    offset: sympy.Expr
    follows: bool

    def step(self, width: int) -> int | None:
        """Elements between neighbours of an aligned pack; None where that is not one number.

        A pack lies inside of one row where rows are multiples of it: quotients do not change.
        """
        element, rows = symbol(ELEMENT), {}
        for quotient in self.offset.atoms(int_floor):
            position, divisor = quotient.args
            if position == element and is_static(divisor) and int(divisor) % width == 0:
                rows[quotient] = sympy.Dummy(integer=True)
        found = sympy.diff(self.offset.xreplace(rows).replace(int_floor, _Quotient), element)
        return int(found) if found.is_Integer else None


class _Quotient(sympy.Function):
    """A quotient that changes inside of a pack: its derivative is no number."""


def is_flat(context: Context, body: MapBody, values: Mapping[Any, Any]) -> bool:
    """Whether the elements written lie in the order of the iterations, and others are near.

    Divisions by what is no number take 64 bits and no shortcut: arrays that need one to find their
    element stay in the map of two axes.

    Args:
        context: the graph.
        body: a map over several ranges.
        values: the parameters by the flat position, as they would be.
    """
    for access in body.writes:
        place = _place(context, access, values)
        if place is not None and not place.follows:
            return False
    for access in body.reads:
        place = _place(context, access, values)
        if place is None or place.follows:
            continue
        quotients = place.offset.atoms(int_floor)
        if not all(is_static(quotient.args[1]) for quotient in quotients):
            return False
    return True


def in_packs(context: Context, body: MapBody, extent: Any) -> MapBody | None:
    """The map over packs of one over `ELEMENT`; None where elements cannot be taken together."""
    reads = [(access, _place(context, access, {})) for access in body.reads]
    writes = [(access, _place(context, access, {})) for access in body.writes]
    if any(access.pointer and place is not None for access, place in (*reads, *writes)):
        return None
    packed = [p for _, p in (*reads, *writes) if p is not None and p.follows]
    if not any(p is not None for _, p in writes):
        return None
    width = _width(context, packed, extent)
    if width == 1:
        return None
    context.include("cuda/pack.h", ("cuda",))
    loads, heads, stores = _code(context, reads, writes, width)
    count = [f"const int _count = {width};"]
    if not _is_multiple(extent, width):
        left = f"const int64_t _left = {text(extent)} - _first;"
        count = [left, f"const int _count = _left < {width} ? int(_left) : {width};"]
    code = [
        f"const int64_t _first = int64_t({_PACK}) * {width};",
        *count,
        *loads,
        "#pragma unroll",
        f"for (int _e = 0; _e < {width}; ++_e) if (_e < _count) {{",
        f"const int64_t {ELEMENT} = _first + _e;",
        *heads,
        body.code,
        *(f"pack{p.access.connector}.value[_e] = {p.access.connector};" for _, p in writes if p),
        "}",
        *stores,
    ]
    return replace(
        body,
        ranges=[(_PACK, ceil_div(extent, width))],
        reads=[_pointer(context, access, place) for access, place in reads],
        writes=[_pointer(context, access, place) for access, place in writes],
        code="\n".join(code),
    )


def _code(
    context: Context,
    reads: Sequence[tuple[Access, _Place | None]],
    writes: Sequence[tuple[Access, _Place | None]],
    width: int,
) -> tuple[list[str], list[str], list[str]]:
    """Lines before the loop over the elements of a pack, at its begin, and behind it."""
    loads, heads, stores = [], [], []
    first = {symbol(ELEMENT): symbol("_first")}
    for access, place in reads:
        if place is None:
            continue
        name, ctype = access.connector, _ctype(context, access)
        begin, step = text(place.offset.subs(first)), place.step(width)
        if step == 1:
            loads.append(f"dfc::cuda::Pack<{ctype}, {width}> pack{name};")
            loads.append(f"pack{name}.load(base{name} + {begin}, _count);")
            heads.append(f"const {ctype} {name} = pack{name}.value[_e];")
        elif step == 0:
            loads.append(f"const {ctype} {name} = base{name}[{begin}];")
        else:
            heads.append(f"const {ctype} {name} = base{name}[{text(place.offset)}];")
    for access, place in writes:
        if place is None:
            continue
        name, ctype = access.connector, _ctype(context, access)
        loads.append(f"dfc::cuda::Pack<{ctype}, {width}> pack{name};")
        heads.append(f"{ctype} {name};")
        stores.append(f"pack{name}.store(base{name} + {text(place.offset.subs(first))}, _count);")
    return loads, heads, stores


def _pointer(context: Context, access: Access, place: _Place | None) -> Access:
    return access if place is None else whole(context, f"base{access.connector}", access.array)


def _ctype(context: Context, access: Access) -> str:
    return str(context.sdfg.arrays[access.array].dtype.ctype)


def _is_multiple(extent: Any, width: int) -> bool:
    """Whether an extent is a multiple of a number whatever its symbols are: no pack has an end."""
    content, _ = sympy.sympify(extent).as_content_primitive()
    return bool(content % width == 0)


def _width(context: Context, packed: Sequence[_Place], extent: Any) -> int:
    """Elements of a pack: one load of the widest type, fewer where threads would be few."""
    arrays = context.sdfg.arrays
    width: int = LOAD_BYTES // max(arrays[p.access.array].dtype.bytes for p in packed)
    while is_static(extent) and width > 1:
        if int(extent) >= width * _BUSY_THREADS * context.gpu.multiprocessors:
            break
        width //= 2
    return width


def _place(context: Context, access: Access, values: Mapping[Any, Any]) -> _Place | None:
    """Where an access goes; None for a pointer that is the same for all iterations."""
    steps = strides(context.sdfg.arrays[access.array])
    begins = [begin for begin, _, _ in access.subset.ranges]
    offset: Any = sum(begin * step for begin, step in zip(begins, steps, strict=True))
    offset = sympy.expand(sympy.sympify(offset).subs(values))
    element = symbol(ELEMENT)
    if access.pointer and element not in offset.free_symbols:
        return None
    follows = element not in sympy.expand(offset - element).free_symbols
    return _Place(access, offset, follows and not access.pointer)
