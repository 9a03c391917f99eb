"""The nodes of the IR: a state machine outside, dataflow inside.

A `Program` is a sequence of blocks over named containers. A `State` is a list of operators in
dependence order; `%values` are assigned once and live in their state, `@containers` carry data
between states and outlive them. `Loop` and `Branch` hold blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
import sympy

from dfcompiler.ir.dims import Dim
from dfcompiler.ir.types import DType, TensorType

Attr: TypeAlias = "int | float | bool | str | sympy.Expr | DType | tuple[Attr, ...]"


class Attrs(Mapping[str, Attr]):
    """An immutable, hashable mapping with sorted keys."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Attr] | None = None) -> None:
        self._items = dict(sorted((items or {}).items()))

    def __getitem__(self, key: str) -> Attr:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return f"Attrs({self._items!r})"


@dataclass(frozen=True)
class Op:
    """One operator: ``result: type = kind inputs {attrs} from "source"``.

    Attributes:
        result: ``%value`` defined here, or ``@container`` written here (the whole of it).
        type: type of the result.
        kind: a row of the operator table.
        inputs: ``%values`` and ``@containers`` read, in the operator's order.
        attrs: what the operator table says for this kind.
        source: name of the node of the model that this came from.
        region: for ``fused``: the operators inside, in order; they read `inputs` under their outer
            names, and the last one gives the result.
    """

    result: str
    type: TensorType
    kind: str
    inputs: tuple[str, ...] = ()
    attrs: Attrs = field(default_factory=Attrs)
    source: str = ""
    region: tuple[Op, ...] = ()

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute called `name`, or `default`."""
        return self.attrs.get(name, default)

    def with_attrs(self, **changes: Attr) -> Op:
        """The operator with some attributes set."""
        return replace(self, attrs=Attrs({**self.attrs, **changes}))

    def with_result(self, result: str) -> Op:
        """The operator defining or writing another name."""
        region = self.region
        if region:
            region = (*region[:-1], replace(region[-1], result=result))
        return replace(self, result=result, region=region)

    def renamed(self, names: Mapping[str, str]) -> Op:
        """The operator reading other values; names that are not in `names` stay."""
        inputs = tuple(names.get(name, name) for name in self.inputs)
        if inputs == self.inputs:
            return self
        region = tuple(op.renamed(names) for op in self.region)
        return replace(self, inputs=inputs, region=region)


class Role(Enum):
    """What a container is for; `PERSIST` outlives a call, `TEMP` does not."""

    INPUT = "input"
    WEIGHT = "weight"
    PERSIST = "persist"
    TEMP = "temp"
    OUTPUT = "output"


@dataclass(frozen=True)
class Container:
    """A named piece of memory: ``weight @kt: f32[12, 64, S]``; `name` has no sigil.

    Attributes:
        parts: of a persistent container that is several stacked along its first axis: what callers
            call them, as ``persist @kv: f32[2, 64] of @k, @v`` says; they are no containers.
    """

    role: Role
    name: str
    type: TensorType
    parts: tuple[str, ...] = ()

    @property
    def pieces(self) -> tuple[Container, ...]:
        """What callers know of it: its parts as containers, or itself where it has none."""
        if not self.parts:
            return (self,)
        one = TensorType(self.type.dtype, self.type.shape[1:])
        return tuple(Container(self.role, name, one) for name in self.parts)


@dataclass(frozen=True)
class Symbol:
    """A positive integer that the shapes of a call's tensors fix; `maximum` bounds it if known."""

    name: str
    maximum: int | None = None


@dataclass(frozen=True)
class State:
    """Operators in dependence order."""

    name: str
    ops: tuple[Op, ...] = ()


@dataclass(frozen=True)
class Loop:
    """``loop name for variable in start..stop until @flag``: blocks repeated in order.

    The variable is a symbol inside the body. `until` names a rank-0 bool container that is read
    before each iteration, the first one too, and ends the loop when it is true.
    """

    name: str
    variable: str
    start: Dim
    stop: Dim
    body: tuple[Block, ...]
    until: str = ""


@dataclass(frozen=True)
class Branch:
    """``branch name if @condition { … } else { … }``; the condition is a rank-0 bool container."""

    name: str
    condition: str
    then: tuple[Block, ...]
    orelse: tuple[Block, ...] = ()


Block: TypeAlias = "State | Loop | Branch"


@dataclass(frozen=True)
class Program:
    """A model: symbols, containers and a state machine over them.

    `data` holds the values of weights and the initial values of persistent containers (absent:
    zeros) by container name. It is not part of the text form nor of equality.
    """

    name: str
    symbols: tuple[Symbol, ...] = ()
    containers: tuple[Container, ...] = ()
    body: tuple[Block, ...] = ()
    data: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def container(self, name: str) -> Container:
        """The container called `name`, with or without its sigil.

        Raises:
            KeyError: if there is none.
        """
        return self.table()[name.removeprefix("@")]

    def table(self) -> dict[str, Container]:
        """Containers by name."""
        return {container.name: container for container in self.containers}

    def by_role(self, role: Role) -> tuple[Container, ...]:
        """Containers of one role, in order."""
        return tuple(c for c in self.containers if c.role is role)

    @property
    def inputs(self) -> tuple[Container, ...]:
        return self.by_role(Role.INPUT)

    @property
    def outputs(self) -> tuple[Container, ...]:
        return self.by_role(Role.OUTPUT)

    @property
    def weights(self) -> tuple[Container, ...]:
        return self.by_role(Role.WEIGHT)

    def blocks(self) -> Iterator[Block]:
        """Every block, outer before inner, in order."""
        yield from blocks_in(self.body)

    def states(self) -> Iterator[State]:
        """Every state, in program order."""
        return (block for block in self.blocks() if isinstance(block, State))

    def ops(self) -> Iterator[Op]:
        """Every operator outside regions, in program order."""
        return ops_in(self.body)


def ops_in(blocks: tuple[Block, ...]) -> Iterator[Op]:
    """Every operator outside regions in some blocks, in program order."""
    return (op for block in blocks_in(blocks) if isinstance(block, State) for op in block.ops)


def blocks_in(blocks: tuple[Block, ...]) -> Iterator[Block]:
    """Some blocks and all inside of them, outer before inner, in order."""
    for block in blocks:
        yield block
        match block:
            case Loop():
                yield from blocks_in(block.body)
            case Branch():
                yield from blocks_in(block.then)
                yield from blocks_in(block.orelse)
