"""One node while it is imported, and the table of the functions that import them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import AttributeProto

from dfcompiler.errors import UnsupportedError
from dfcompiler.importers.onnx.contents import Elements, uniform
from dfcompiler.importers.onnx.context import Context
from dfcompiler.importers.onnx.emission import shortest
from dfcompiler.importers.onnx.values import Value
from dfcompiler.ir.dims import Dim, as_dim

Results: TypeAlias = "Value | tuple[Value | None, ...]"
Handler: TypeAlias = "Callable[[Context, Node], Results]"


_MOST_DIMS = 1024
"""Far more axes than a tensor may have."""


class Decline(Exception):  # noqa: N818 - a way out, not a failure
    """A handler leaves a node to the operator's own decomposition in the ONNX standard."""


@dataclass
class Node:
    """A node with its inputs looked up.

    Attributes:
        proto: the message.
        inputs: the values read; None where an optional input is left out.
        opset: version of the operator set that defines it.
        attrs: attribute values; strings decoded.
    """

    proto: onnx.NodeProto
    inputs: list[Value | None]
    opset: int
    attrs: dict[str, Any]

    @property
    def op_type(self) -> str:
        return str(self.proto.op_type)

    def __getitem__(self, index: int) -> Value:
        value = self.optional(index)
        if value is None:
            raise ValueError(f"its input {index} is missing")
        return value

    def ranked(self, index: int, least: int, most: int = 64) -> Value:
        """The input at `index`, which must have `least` to `most` axes."""
        value = self[index]
        if not least <= value.rank <= most:
            expected = f"{least}" if least == most else f"at least {least}"
            raise ValueError(f"its input {index} has rank {value.rank}; expected {expected}")
        return value

    def optional(self, index: int) -> Value | None:
        """The input at `index`, None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def values(self) -> list[Value]:
        """All inputs, none of which may be left out."""
        return [self[index] for index in range(len(self.inputs))]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return self.attrs.get(name, default)

    def wants(self, index: int) -> bool:
        """Whether the output at `index` is named, hence used."""
        return index < len(self.proto.output) and bool(self.proto.output[index])

    def dims(self, index: int) -> tuple[Dim, ...]:
        """The elements of an integer input that must be known before any call."""
        value = self[index]
        content = value.content
        if isinstance(content, Elements):
            return tuple(as_dim(_plain(item)) for item in content.array.flat)
        single = uniform(content)
        if single is not None and value.rank == 0:
            return (as_dim(single),)
        if single is not None and isinstance(value.shape[0], int):
            if value.shape[0] > _MOST_DIMS:
                raise ValueError(f"its input {index} has {value.shape[0]} elements")
            return (as_dim(single),) * value.shape[0]
        raise UnsupportedError(
            f"{self.op_type} takes its shape from the elements of {value.source or 'an input'}, "
            "which are known only at run time"
        )

    def dim(self, index: int) -> Dim:
        """The one element of an integer input that must be known before any call."""
        values = self.dims(index)
        if len(values) != 1:
            raise ValueError(f"its input {index} has {len(values)} elements; expected 1")
        return values[0]

    def integers(self, index: int) -> tuple[int, ...]:
        """Like `dims`, without symbols."""
        dims = self.dims(index)
        if not all(isinstance(dim, int) for dim in dims):
            raise UnsupportedError(f"{self.op_type} needs plain integers as its input {index}")
        return tuple(dim for dim in dims if isinstance(dim, int))

    def integer(self, index: int) -> int:
        """The one element of an integer input, without symbols."""
        dim = self.dim(index)
        if not isinstance(dim, int):
            raise UnsupportedError(f"{self.op_type} needs a plain integer as its input {index}")
        return dim

    def number(self, index: int) -> float:
        """The one element of an input that must be known before any call."""
        single = uniform(self[index].content)
        if not isinstance(single, bool | int | float):
            raise UnsupportedError(f"{self.op_type} needs a constant as its input {index}")
        return single

    def unsupported(self, what: str) -> UnsupportedError:
        """The error for a feature of this node that cannot be compiled."""
        return UnsupportedError(f"{self.op_type} with {what} cannot be compiled")


def _plain(item: object) -> object:
    """An element as a Python number; a whole floating-point one as an integer."""
    number = item.item() if isinstance(item, np.generic) else item
    return int(number) if isinstance(number, float) and number.is_integer() else number


HANDLERS: dict[str, Handler] = {}
"""Functions that import operators of the standard domain, by operator."""


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Registers the function that imports the operators called `names`."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register


def decode_attribute(attribute: onnx.AttributeProto) -> Any:
    """The value of an attribute; strings as `str`, tensors and graphs as messages."""
    match attribute.type:
        case AttributeProto.STRING:
            return attribute.s.decode("utf-8", "replace")
        case AttributeProto.STRINGS:
            return tuple(s.decode("utf-8", "replace") for s in attribute.strings)
        case AttributeProto.FLOATS:
            return tuple(map(shortest, attribute.floats))
        case AttributeProto.INTS:
            return tuple(attribute.ints)
        case AttributeProto.INT:
            return int(attribute.i)
        case AttributeProto.FLOAT:
            return shortest(attribute.f)
        case AttributeProto.TENSOR:
            return attribute.t
    return onnx.helper.get_attribute_value(attribute)
