"""Attention of few new tokens over a cache on a GPU: one launch, the cache and the rest apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import dace

from dfcompiler.analysis.gpu_attention import STEP_ROWS, STEP_WIDTHS
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.cuda.attention import IMPLEMENTATIONS
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE, checked, strided, truth
from dfcompiler.lowering.cuda.maps import add_launch
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.expansion import broadcast_strides
from dfcompiler.lowering.rotary import pairs_of
from dfcompiler.lowering.symbolic import contraction_work, expression, is_static, product, text
from dfcompiler.lowering.views import from_first_element


@dataclass(frozen=True)
class Step:
    """Softmax(rotated q · [past, rotated new keys]ᵀ)·[past, new values].

    Attributes:
        attention: the attention itself, over what the other operators of the region make.
        reads: the value behind each connector.
        rotation: ``none``, ``halves`` or ``interleaved``.
    """

    attention: Op
    reads: Mapping[str, str]
    rotation: str


def step_of(op: Op) -> Step:
    """The region [rotary of q and of new keys]; concat of keys; concat of values; attention.

    Raises:
        UnsupportedError: if it is anything else.
    """
    *before, attention = op.region
    makers = {inner.result: inner for inner in before}
    q, k, v = (makers.get(name) for name in attention.inputs[:3])
    joined = attention.kind == "attention" and len(attention.inputs) == 3
    if not joined or k is None or v is None or {k.kind, v.kind} != {"concat"}:
        raise _unsupported(op, "it does not end with keys and values of two parts each")
    if len(k.inputs) != 2 or len(v.inputs) != 2 or {k.attr("axis"), v.attr("axis")} != {2}:
        raise _unsupported(op, "its keys or values are not two parts along their axis")
    reads = {"_k": k.inputs[0], "_v": v.inputs[0], "_new_v": v.inputs[1]}
    fresh = makers.get(k.inputs[1])
    turned = [one for one in (q, fresh) if one is not None]
    if not turned:
        reads |= {"_q": attention.inputs[0], "_new_k": k.inputs[1]}
        return Step(attention, reads, "none")
    if [one.kind for one in turned] != ["rotary", "rotary"] or len({_turn(o) for o in turned}) > 1:
        raise _unsupported(op, "queries and new keys are not rotated by the same angles")
    names = zip(("_q", "_new_k"), turned, strict=True)
    reads |= {connector: one.inputs[0] for connector, one in names}
    reads |= dict(zip(("_cos", "_sin"), turned[0].inputs[1:], strict=True))
    return Step(attention, reads, pairs_of(turned[0]))


def lower_attention_step(context: Context, op: Op) -> None:
    """One launch for the whole region.

    Raises:
        UnsupportedError: for element types, widths, rows or layouts that there is no kernel for.
    """
    found = step_of(op)
    asked = context.expansion(op, "attention", IMPLEMENTATIONS)
    arrays = {
        connector: from_first_element(context.sdfg.arrays[context.array(name)])
        for connector, name in ({"_o": op.result} | dict(found.reads)).items()
    }
    rows = _check(context, op, found, arrays)
    dtype, width = STORAGE[op.type.dtype], int(op.type.shape[3])
    causal = truth(found.attention.attr("causal", False))
    rotation = f"{SPACE}Rotation::{found.rotation}"
    template = f"{SPACE}attention_step<{dtype}, {width}, {rows}, {rotation}, {causal}>"
    problem = f"{SPACE}AttentionStep<{dtype}>"
    signature = f"(cudaStream_t, {problem})"
    context.instantiate("attention_step", f"template cudaError_t {template}{signature};")
    fields = _fields(found, arrays)
    call = f"{template}(__dace_current_stream, {problem}{{{fields}}})"
    batch, heads, queries, _ = (expression(dim) for dim in op.type.shape)
    keys = arrays["_k"].shape[2] + arrays["_new_k"].shape[2]
    work = contraction_work(keys * 2 * width, product((batch, heads, queries)))
    add_launch(context, op, found.reads, checked(call), work=work)
    turned = "" if found.rotation == "none" else f", rotated in {found.rotation}"
    reason = f"up to {rows} rows of a key head; new keys{turned} are read beside the cache"
    if asked != "native":
        reason = f"{reason}; {asked} has no such kernel"
    context.record(KernelRecord(op, f"native attention step {op.type.dtype.value} {width}", reason))


def _turn(op: Op) -> tuple[object, ...]:
    return (*op.inputs[1:], op.attrs)


def _check(context: Context, op: Op, found: Step, arrays: Mapping[str, dace.data.Array]) -> int:
    """The rows of the kernel that serves the operator: a power of two."""
    dtypes = {context.type(name).dtype for name in (*found.reads.values(), op.result)}
    if len(dtypes) > 1 or op.type.dtype not in STORAGE or op.type.dtype is DType.F64:
        names = ", ".join(sorted(dtype.value for dtype in dtypes))
        raise _unsupported(op, f"there is no kernel for {names}")
    if any(context.type(name).layout.is_tiled for name in (*found.reads.values(), op.result)):
        raise _unsupported(op, "it does not read or write tiled layouts")
    q, k = arrays["_q"], arrays["_k"]
    widths = {array.shape[3] for name, array in arrays.items() if name not in ("_cos", "_sin")}
    if len(widths) > 1 or widths & set(STEP_WIDTHS) != widths:
        shown = ", ".join(map(str, widths))
        raise _unsupported(op, f"heads of {shown} elements; there are kernels for {STEP_WIDTHS}")
    strided = [n for n, a in arrays.items() if a.shape[-1] != 1 and a.strides[-1] != 1]
    if strided:
        raise _unsupported(op, f"elements of a row of {strided[0][1:]} are not contiguous")
    rows = q.shape[1] // k.shape[1] * q.shape[2]
    if not is_static(rows) or int(rows) > STEP_ROWS:
        raise _unsupported(op, f"{rows} queries read one key head; the kernel ends at {STEP_ROWS}")
    if found.rotation != "none" and q.shape[2] != arrays["_new_k"].shape[2]:
        raise _unsupported(op, "there are not as many new keys as queries")
    return 1 << (int(rows) - 1).bit_length()


def _fields(found: Step, arrays: Mapping[str, dace.data.Array]) -> str:
    q, k, fresh = arrays["_q"], arrays["_k"], arrays["_new_k"]
    batch, heads, queries, _ = q.shape
    sizes = (batch, heads, k.shape[1], queries, k.shape[2], fresh.shape[2])

    rows = ("_q", "_k", "_v", "_new_k", "_new_v", "_o")
    fields = [", ".join(map(text, sizes))]
    fields += [strided(name, arrays[name].strides[:3]) for name in rows]
    for name in ("_cos", "_sin"):
        if found.rotation == "none":
            fields.append("nullptr, {0, 0}")
            continue
        angles = broadcast_strides(arrays[name], [batch, 1, queries, arrays[name].shape[-1]])
        fields.append(strided(name, (angles[0], angles[2])))
    return ", ".join([*fields, f"{float(found.attention.attr('scale'))!r}f"])


def _unsupported(op: Op, reason: str) -> UnsupportedError:
    return UnsupportedError(f"this attention cannot be lowered: {reason}", location(op))
