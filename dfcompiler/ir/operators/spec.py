"""What a row of the operator table holds, and the rules that several operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from dfcompiler.ir.dims import Dim, Shape, equal, show_dim
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType, TensorType

Array: TypeAlias = np.ndarray
Types: TypeAlias = Sequence[TensorType]
InferRule: TypeAlias = Callable[[Op, Types], TensorType]
Reference: TypeAlias = Callable[[Op, Sequence[Array], Mapping[str, int]], Array]
FlopRule: TypeAlias = Callable[[Op, Types], Dim]


class OpClass(Enum):
    """Operator classes after arXiv 2007.00072, data movement split off from element-wise."""

    CONTRACTION = "tensor contraction"
    NORMALIZATION = "statistical normalization"
    ELEMENTWISE = "element-wise"
    MOVEMENT = "data movement"


@dataclass(frozen=True)
class OpSpec:
    """One row of the operator table.

    Attributes:
        kind: the operator's name in the text form.
        op_class: its class.
        arity: least and greatest number of inputs; -1 for no upper limit.
        infer: the type rule: the operator (its attributes and declared type) and the types of its
            inputs give the result's type; raises ValueError with a sentence when they do not fit.
        flops: floating-point operations, a multiply-add counting two.
        reference: the operator in numpy, in the precision of its inputs.
        attrs: required attributes.
        optional: optional attributes with their defaults.
        doc: one line for the generated documentation.
    """

    kind: str
    op_class: OpClass
    arity: tuple[int, int]
    infer: InferRule
    flops: FlopRule
    reference: Reference
    attrs: tuple[str, ...] = ()
    optional: Mapping[str, Any] | None = None
    doc: str = ""


def no_flops(op: Op, types: Types) -> Dim:
    """The count of operators that only move or compare."""
    return 0


def flops_per_result(count: int) -> FlopRule:
    """`count` operations for each element of the result."""
    return lambda op, types: op.type.elements * count


def flops_per_input(count: int) -> FlopRule:
    """`count` operations for each element of the first input."""
    return lambda op, types: types[0].elements * count


def normalize_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        ValueError: if it is out of range.
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """The numpy broadcast of symbolic shapes; a symbol is taken not to be 1.

    Raises:
        ValueError: if two extents differ and neither is 1.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for i, dim in enumerate(shape, rank - len(shape)):
            if isinstance(dim, int) and dim == 1:
                continue
            if isinstance(result[i], int) and result[i] == 1:
                result[i] = dim
            elif not equal(result[i], dim):
                found = f"{show_dim(result[i])} and {show_dim(dim)}"
                raise ValueError(f"extents {found} of axis {i} do not broadcast")
    return tuple(result)


def same_dtype(types: Types) -> DType:
    """The element type that all inputs share.

    Raises:
        ValueError: if they differ.
    """
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1:
        names = ", ".join(sorted(d.value for d in dtypes))
        raise ValueError(f"inputs have different element types: {names}")
    return types[0].dtype
