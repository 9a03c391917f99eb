"""What a matrix product computes on a GPU: its operands, what is fused behind it, its extents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op, Role
from dfcompiler.ir.types import TensorType
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.matmul import ACTIVATIONS, activation_of, stage_of
from dfcompiler.lowering.nodes.expansion import broadcast_strides
from dfcompiler.lowering.nodes.matmul import Problem
from dfcompiler.lowering.views import from_first_element


@dataclass(frozen=True)
class Product:
    """C = residual(activation(norm(A)·B + bias)) and the values that it reads.

    Attributes:
        a: left operand.
        b: right operand.
        b_is_weight: whether it lies in a weight, which no kernel writes.
        bias: vector along the columns; empty for none.
        activation: ``none`` or what `kernels/cuda/gemm.h` calls it.
        residual: ``none``, ``add``, ``mul`` or ``gate``: the left half of the columns, activated,
            times the right half.
        other: what the residual reads.
        gain: factors of the elements of normalized rows; empty for rows of A as they are.
        epsilon: what is added to the mean square of a row.
    """

    a: str
    b: str
    b_is_weight: bool = False
    bias: str = ""
    activation: str = "none"
    residual: str = "none"
    other: str = ""
    gain: str = ""
    epsilon: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether every kernel of products computes it."""
        return not self.gain and self.residual != "gate"

    @property
    def reads(self) -> dict[str, str]:
        """The value behind each connector."""
        named = {"_a": self.a, "_b": self.b, "_bias": self.bias, "_residual": self.other}
        named["_gain"] = self.gain
        return {connector: name for connector, name in named.items() if name}

    @property
    def epilogue(self) -> str:
        """What is fused, for the record."""
        stages = ("bias" if self.bias else "", self.activation, self.residual)
        fused = [stage for stage in stages if stage not in ("", "none")]
        first = "; rows of A are normalized" if self.gain else ""
        return f"{first}; epilogue {' + '.join(fused)}" if fused else first


def product_of(context: Context, op: Op) -> Product:
    """The product that an operator, or its region, is.

    Raises:
        UnsupportedError: if its stages are not bias, activation and residual in this order.
    """
    first, *rest = op.region or (op,)
    norm = first if first.kind == "rms_norm" and rest else None
    if norm is not None:
        first, *rest = rest
    if first.kind != "matmul":
        what = "int8-coded weights have no kernel on GPUs" if first.kind == "dequantize" else ""
        raise unsupported(op, what or "it does not start with a matrix product")
    types = context.types_of(op)
    a, b = first.inputs
    found, value = Product(a, b, role_of(context, b) is Role.WEIGHT), first.result
    if norm is not None:
        found = _normalized(op, found, norm)
    if [inner.kind for inner in rest[:2]] == ["slice", "slice"]:
        return _gated(op, found, value, rest)
    for inner in rest:
        if inner is not rest[-1] or inner.kind != "cast":
            found = _with_stage(op, found, inner, value, types)
        value = inner.result
    return found


def _normalized(op: Op, found: Product, norm: Op) -> Product:
    if found.a != norm.result:
        raise unsupported(op, "its left operand is not the normalization in front of it")
    a, gain = norm.inputs
    return replace(found, a=a, gain=gain, epsilon=float(norm.attr("epsilon")))


def _gated(op: Op, found: Product, value: str, rest: list[Op]) -> Product:
    """The region matmul; both halves of its columns; activation of the left one; their product."""
    if len(rest) == 4:
        left, right, activation, last = rest
        columns = op.type.shape[-1]
        halves = [part.inputs == (value,) and part.attr("starts")[-1] for part in (left, right)]
        known = activation.kind in ACTIVATIONS and activation.inputs == (left.result,)
        meet = last.kind == "mul" and set(last.inputs) == {activation.result, right.result}
        if halves == [0, columns] and known and meet:
            return replace(found, activation=activation_of(activation), residual="gate")
    raise unsupported(op, "what it does with parts of its columns is no gate")


def _with_stage(
    op: Op, found: Product, inner: Op, value: str, types: Mapping[str, TensorType]
) -> Product:
    stage = stage_of(op, inner, value, types)
    done = found.residual != "none"
    if stage.kind == "bias" and not done and found.activation == "none" and not found.bias:
        return replace(found, bias=stage.operand)
    if stage.kind in (*ACTIVATIONS, "gelu_tanh") and not done and found.activation == "none":
        return replace(found, activation=stage.kind)
    if stage.kind in ("add", "mul") and not done:
        return replace(found, residual=stage.kind, other=stage.operand)
    raise unsupported(
        op,
        f"{stage.kind} comes after {found.epilogue[2:] or 'nothing'}; the kernel's order is "
        "bias, activation, residual",
    )


def role_of(context: Context, name: str) -> Role | None:
    """The role of the container that a value lies in, if it lies in one."""
    container, _ = context.memory(name)
    return {c.name: c.role for c in context.program.containers}.get(container)


def problem_of(context: Context, op: Op, found: Product) -> Problem:
    """Extents and strides, with at most the batch axes that no single stride describes."""
    arrays = {
        connector: from_first_element(context.sdfg.arrays[context.array(name)])
        for connector, name in ({"_o": op.result} | found.reads).items()
    }
    shape = list(arrays["_o"].shape)
    wanted = {
        connector: [*shape[:-2], *array.shape[-2:]] if connector in ("_a", "_b") else shape
        for connector, array in arrays.items()
    }
    strides = {name: broadcast_strides(array, wanted[name]) for name, array in arrays.items()}
    for vector in ("_bias", "_gain"):
        strides.pop(vector, None)
    depth = arrays["_a"].shape[-1]
    problem = Problem(tuple(shape[:-2]), shape[-2], shape[-1], depth, strides)
    return _one_batch(problem.merged())


def _one_batch(problem: Problem) -> Problem:
    """Batch axes of one element vanish; neighbours that one stride walks become one axis."""
    keep = [axis for axis, extent in enumerate(problem.batch) if extent != 1]
    batch = [problem.batch[axis] for axis in keep]
    strides = {n: [*(s[axis] for axis in keep), *s[-2:]] for n, s in problem.strides.items()}
    axis = len(batch) - 1
    while axis > 0:
        inner = batch[axis]
        if all(s[axis - 1] == s[axis] * inner for s in strides.values()):
            batch[axis - 1 : axis + 1] = [batch[axis - 1] * inner]
            strides = {n: [*s[: axis - 1], *s[axis:]] for n, s in strides.items()}
        axis -= 1
    return replace(problem, batch=tuple(batch), strides=strides)


def unsupported(op: Op, reason: str) -> UnsupportedError:
    """The error about a product that no kernel computes."""
    return UnsupportedError(f"this matrix product cannot be lowered: {reason}", location(op))
