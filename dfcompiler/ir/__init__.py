"""The stateful dataflow IR: types, nodes, operators, text, verifier, rewriting, interpreter."""

from dfcompiler.ir.dims import Dim, Shape
from dfcompiler.ir.interpret import interpret
from dfcompiler.ir.operators import OPERATORS, OpClass, OpSpec
from dfcompiler.ir.parser import parse
from dfcompiler.ir.printer import show, show_op
from dfcompiler.ir.program import (
    Attr,
    Attrs,
    Block,
    Branch,
    Container,
    Loop,
    Op,
    Program,
    Role,
    State,
    Symbol,
)
from dfcompiler.ir.types import Affine, Bitmap, Dense, DType, Layout, PhysicalAxis, TensorType
from dfcompiler.ir.verify import verify

__all__ = [
    "OPERATORS",
    "Affine",
    "Attr",
    "Attrs",
    "Bitmap",
    "Block",
    "Branch",
    "Container",
    "DType",
    "Dense",
    "Dim",
    "Layout",
    "Loop",
    "Op",
    "OpClass",
    "OpSpec",
    "PhysicalAxis",
    "Program",
    "Role",
    "Shape",
    "State",
    "Symbol",
    "TensorType",
    "interpret",
    "parse",
    "show",
    "show_op",
    "verify",
]
