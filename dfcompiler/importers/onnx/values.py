"""Values of a graph while it is imported: their type, their contents if known, and their name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dfcompiler.importers.onnx.contents import Content
from dfcompiler.ir import DType, TensorType
from dfcompiler.ir.dims import Shape


@dataclass(eq=False)
class Value:
    """A tensor; it becomes an operator or a container only when something reads its memory.

    Attributes:
        type: element type and shape.
        name: its name in the program, once it has one.
        content: what is known about its elements.
        emit: makes it exist in the program and returns its name.
        columns: the values side by side along the last axis, when it was concatenated from such.
        narrow: the value that this one is a broadcast of.
        source: the model's name of it, for messages and weight names.
    """

    type: TensorType
    name: str = ""
    content: Content | None = None
    emit: Callable[[], str] | None = None
    columns: tuple[Value, ...] = ()
    narrow: Value | None = None
    source: str = ""

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def rank(self) -> int:
        return self.type.rank

    @property
    def dtype(self) -> DType:
        return self.type.dtype
