"""Predicted seconds of kernels, from the rates of a machine and the schedule of each kernel.

A kernel's time is a weighted sum of features, each the seconds that one resource would take alone:

    fma       multiply-adds of the register tile, of the busiest thread
    stream    bytes of weights, from the last-level cache as far as it keeps them, else from memory
    longer    the longer of these two: they overlap where kernels prefetch
    values    bytes of activations read and written, at the rate of the L2
    beyond    the part of them that a thread's L2 does not hold
    work      vector instructions on elements: exp, erf, division count several
    tasks     calls of the kernel's inner function
    meet      the meeting of the threads at the end

The weights are one for each family of kernels (`Machine.weights`). Predictions use nothing that
was measured on the program itself. `program_time` adds up the kernels of a program. Products on a
GPU take the seconds by which their tiles are chosen (`gpu_products`), and a launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import TypeAlias

from dfcompiler.analysis.gpu_plans import loop_tile
from dfcompiler.analysis.gpu_products import product_s
from dfcompiler.analysis.layouts import is_view
from dfcompiler.analysis.machine import Machine
from dfcompiler.analysis.schedule import bytes_of, operand_bytes
from dfcompiler.ir.dims import evaluate
from dfcompiler.ir.operators.fused import region_scope
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import TensorType

FEATURES = ("fma", "stream", "longer", "values", "beyond", "work", "tasks", "meet")
Features: TypeAlias = dict[str, float]
Types: TypeAlias = tuple[TensorType, ...]

INSTRUCTIONS = {
    **dict.fromkeys(("exp", "sigmoid"), 20),
    **dict.fromkeys(("gelu", "erf", "silu"), 36),
    **dict.fromkeys(("tanh", "log", "sin", "cos"), 40),
    **dict.fromkeys(("div", "reciprocal", "sqrt", "rsqrt", "mod"), 16),
    "pow": 80,
    "rotary": 6,
}
"""Vector instructions for one vector of elements; every other element-wise operator takes one."""

DEFAULT_WEIGHTS: dict[str, Features] = {
    "packed product": {"fma": 0.1, "stream": 0.1, "longer": 0.9, "values": 1.0, "work": 1.0},
    "product": {"fma": 1.15, "stream": 1.0, "values": 0.5, "work": 1.0},
    "attention": {"fma": 1.4, "values": 1.0, "beyond": 0.5, "work": 1.2},
    "rows": {"values": 1.0, "beyond": 0.3, "work": 2.0},
    "elements": {"values": 1.0, "beyond": 0.5, "work": 1.0},
    "movement": {"values": 1.0, "beyond": 0.5, "work": 4.0},
}
"""Weights of a machine that was not calibrated; threads always meet, tasks take 50 ns."""

TASK_S = 50e-9
"""Seconds for a call of a kernel's inner function."""


def predicted_s(
    op: Op, types: Types, sizes: Mapping[str, int], machine: Machine, weight_bytes: int = 0
) -> float:
    """Seconds of one run of an operator.

    Args:
        op: any operator; a value that is only a view takes none.
        types: of its inputs, in order.
        sizes: values of the symbols in the types.
        machine: rates and weights.
        weight_bytes: of all weights that a call reads: more than a cache keeps come from memory.
    """
    bound = tuple(_bound(tensor, sizes) for tensor in types)
    return kernel_s(_bound_op(op, sizes), bound, machine, weight_bytes)


def kernel_s(op: Op, types: Types, machine: Machine, weight_bytes: int = 0) -> float:
    """Seconds of one run of an operator whose types are concrete."""
    family = family_of(op, types)
    if not family:
        return 0.0
    if machine.gpu is not None and family == "product":
        seconds = product_s(op, types, machine.gpu)
        if seconds is not None:
            return seconds + machine.meet_s
    return predict(family, features(op, types, machine, weight_bytes), machine)


def predict(family: str, found: Features, machine: Machine) -> float:
    """Seconds of a kernel of one family with these features."""
    weights = machine.weights.get(family) or usual_weights(family)
    return sum(weights.get(name, 0.0) * value for name, value in found.items())


def usual_weights(family: str) -> Features:
    """The weights of a machine that was not calibrated; threads always meet."""
    return {"meet": 1.0, "tasks": 1.0, **DEFAULT_WEIGHTS[family]}


def stream_s_per_byte(machine: Machine, weight_bytes: int) -> float:
    """Seconds for a byte of `weight_bytes` that every call reads once."""
    kept = min(1.0, machine.l3_bytes / weight_bytes) if weight_bytes else 1.0
    return kept / machine.l3_rate + (1 - kept) / machine.memory_rate


def family_of(op: Op, types: Types) -> str:
    """The kernels that an operator's time is predicted with; empty for one that takes none."""
    if op.attr("alias", False) or (types and is_view(op, types[0])):
        return ""
    if op.kind in ("constant", "dim") and not op.type.shape:
        return ""
    product = _product(op, types)
    if product is not None:
        return "packed product" if product[2].layout.is_tiled else "product"
    match op.kind:
        case "attention":
            return "attention"
        case "layer_norm" | "rms_norm" | "softmax" | "cumsum" | "argmax":
            return "rows"
        case "concat" | "expand" | "gather" | "index_copy" | "pad" | "take_along" | "transpose":
            return "movement"
    return "rows" if op.kind.startswith("reduce_") else "elements"


def features(op: Op, types: Types, machine: Machine, weight_bytes: int = 0) -> Features:
    """Seconds that each resource would take alone, for an operator with concrete types."""
    product = _product(op, types)
    if product is not None:
        found = _product_features(op, types, product, machine)
        found["stream"] *= stream_s_per_byte(machine, weight_bytes)
    elif op.kind == "attention":
        found = _attention_features(op, types, machine)
    else:
        found = _element_features(op, types, machine)
    found["longer"] = max(found["fma"], found["stream"])
    found["meet"] = machine.meet_s
    return found


# ------------------------------------------------------------------------------------ the families


def _product(op: Op, types: Types) -> tuple[Op, TensorType, TensorType] | None:
    """The matrix product that an operator is or holds, with its operands as stored."""
    if op.kind == "matmul":
        return op, types[0], types[1]
    if op.kind != "fused":
        return None
    scope = region_scope(op, types)
    stored = dict(scope)
    for inner in op.region:
        if inner.kind == "matmul":
            a, b = (stored[name] for name in inner.inputs)
            return inner, a, b
        stored[inner.result] = stored[inner.inputs[0]] if inner.kind == "dequantize" else inner.type
    return None


def _product_features(
    op: Op, types: Types, product: tuple[Op, TensorType, TensorType], machine: Machine
) -> Features:
    inner, a, b = product
    columns, depth = int(b.shape[-1]), int(a.shape[-1])
    shared = prod(map(int, b.shape[:-2]))
    batch = prod(map(int, inner.type.shape[:-2]))
    rows = int(inner.type.shape[-2]) * (batch if shared == 1 else 1)
    batch = 1 if shared == 1 else batch
    tile = loop_tile(op.attr("tile", (6, 64, 128, 512)), rows)
    panels, blocks = ceil(columns / tile.nr), ceil(rows / tile.mc)
    tasks = batch * panels * blocks
    busiest = ceil(tasks / machine.threads) / tasks
    fma = 2 * batch * rows * depth * panels * tile.nr * busiest / machine.tile_flops
    other = sum(map(bytes_of, types)) - bytes_of(b)
    return {
        "fma": fma,
        "stream": bytes_of(b) * blocks,
        **_value_features(other + bytes_of(op.type), machine),
        "work": _work_s([i for i in op.region if i.kind not in ("matmul", "dequantize")], machine),
        "tasks": tasks * busiest * TASK_S,
    }


def _attention_features(op: Op, types: Types, machine: Machine) -> Features:
    q, k, v = types[:3]
    batch, heads, queries, width = map(int, q.shape)
    keys, value_width = int(k.shape[2]), int(v.shape[3])
    seen = 0.5 if op.attr("causal", False) and queries == keys else 1.0
    lanes = machine.vector_bytes // 4  # queries lie side by side
    scores = batch * heads * ceil(queries / lanes) * lanes * keys * seen
    tasks = batch * heads * ceil(queries / 64)
    busiest = ceil(tasks / machine.threads) / tasks
    vectors = scores / lanes * busiest
    return {
        "fma": 2 * scores * (width + value_width) * busiest / machine.tile_flops,
        "stream": 0.0,
        **_value_features(sum(map(bytes_of, (q, k, v, op.type))), machine),
        "work": vectors * (INSTRUCTIONS["exp"] + 6) * machine.vector_s,
        "tasks": tasks * busiest * TASK_S,
    }


def _element_features(op: Op, types: Types, machine: Machine) -> Features:
    """Element-wise regions, normalizations, reductions, movement."""
    read = sum(operand_bytes(op, types, index) for index in range(len(types)))
    in_place = op.kind == "index_copy" and op.result == op.inputs[0]
    written = 0 if in_place else bytes_of(op.type)
    elements = op.region or (_largest(op, types),)
    return {
        "fma": 0.0,
        "stream": 0.0,
        **_value_features(read + written, machine),
        "work": _work_s(elements, machine),
        "tasks": 0.0,
    }


def _largest(op: Op, types: Types) -> Op:
    """The operator counted on its input where that is what it walks over."""
    if not types or bytes_of(types[0]) <= bytes_of(op.type) or not op.kind.startswith("reduce_"):
        return op
    return replace(op, type=types[0])


def _work_s(ops: Sequence[Op], machine: Machine) -> float:
    """Vector instructions of element-wise operators, shared by the threads."""
    total = 0.0
    for op in ops:
        count = {"softmax": 32, "layer_norm": 8, "rms_norm": 6}.get(op.kind)
        each = count or INSTRUCTIONS.get(op.kind, 1)
        total += each * prod(map(int, op.type.shape)) * op.type.dtype.bytes
    return total / machine.vector_bytes * machine.vector_s / machine.threads


def _value_features(moved: int, machine: Machine) -> Features:
    """Activations: from a thread's L2 while its share is there from the kernel before.

    Caches that drop the oldest line lose all of what is read in order soon after it outgrows them:
    from 4/5 of the L2 to 11/10 of it the share moves beyond.
    """
    share = moved / machine.threads
    outside = min(1.0, max(0.0, (share / machine.l2_bytes - 0.8) / 0.3))
    return {"values": share / machine.l2_rate, "beyond": outside * moved / machine.l3_rate}


# ------------------------------------------------------------------------------------------ binding


def _bound(tensor: TensorType, sizes: Mapping[str, int]) -> TensorType:
    return replace(tensor, shape=tuple(evaluate(dim, sizes) for dim in tensor.shape))


def _bound_op(op: Op, sizes: Mapping[str, int]) -> Op:
    region = tuple(_bound_op(inner, sizes) for inner in op.region)
    return replace(op, type=_bound(op.type, sizes), region=region)
