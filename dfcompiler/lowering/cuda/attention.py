"""Attention on a GPU: one launch of `kernels/cuda/attention*.cuh`, two where keys are split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import dace

from dfcompiler.analysis.gpu_tiles import CHUNK_BYTES
from dfcompiler.errors import UnsupportedError
from dfcompiler.ir.program import Op
from dfcompiler.ir.types import DType
from dfcompiler.lowering.attention import attention_work, operands, refuse_tiled
from dfcompiler.lowering.context import Context, location
from dfcompiler.lowering.cuda.cpp import SPACE, STORAGE, checked, strided, truth
from dfcompiler.lowering.cuda.maps import add_launch
from dfcompiler.lowering.lowered import KernelRecord
from dfcompiler.lowering.nodes.expansion import broadcast_strides
from dfcompiler.lowering.symbolic import is_static, text
from dfcompiler.lowering.views import from_first_element

WGMMA_WIDTH = 128
"""Elements of the widest heads that warp groups multiply."""
IMPLEMENTATIONS: Mapping[str, str] = {
    "native": "",
    "wgmma": f"bf16 or f16 on sm_90, heads of at most {WGMMA_WIDTH} elements",
}
"""Expansions of attention, and what alone they are for; `native` is taken if none is asked for."""
# As the kernels have it: rows of a key head that make one warp group.
_LEAST_WGMMA_ROWS = 64
# Widths of the tiled kernels, and the step and the end of those that a warp takes.
TILED_WIDTHS = (32, 64, 128)
_WARP_STEP, _MOST_WIDTH = 32, 512


def lower_attention(context: Context, op: Op) -> None:
    """One launch for the whole of softmax(q·kᵀ·scale + mask)·v.

    Raises:
        UnsupportedError: for element types, widths or layouts that there is no kernel for.
    """
    where = location(op)
    implementation = _check(context, op, where)
    names = operands(op)
    arrays = {
        connector: from_first_element(context.sdfg.arrays[context.array(name)])
        for connector, name in ({"_o": op.result} | names).items()
    }
    if arrays["_o"].strides[3] != 1 and arrays["_o"].shape[3] != 1:
        raise UnsupportedError("attention writes rows; its result has a strided last axis", where)
    width = padded_width(context, op, where)
    dtype, mask = STORAGE[op.type.dtype], mask_type(context, op)
    causal = truth(op.attr("causal", False))
    family, record = _choice(context, op, implementation, width, arrays)
    template = f"{SPACE}{family}<{dtype}, {mask}, {width}, {causal}>"
    problem = f"{SPACE}Attention<{dtype}, {mask}>"
    context.instantiate(family, f"template cudaError_t {template}(cudaStream_t, {problem});")
    call = f"{template}(__dace_current_stream, {problem}{{{_fields(op, arrays)}}})"
    work = attention_work(context, op)
    add_launch(context, op, names, checked(call), work=work)
    context.record(record)


def mask_type(context: Context, op: Op) -> str:
    """The C++ type of the mask's elements."""
    if len(op.inputs) < 4:
        return f"{SPACE}NoMask"
    dtype = context.type(op.inputs[3]).dtype
    return "bool" if dtype is DType.BOOL else STORAGE[dtype]


def padded_width(context: Context, op: Op, where: tuple[str, str]) -> int:
    """The width of a head in registers: both widths fit.

    Raises:
        UnsupportedError: if it is too large, or not known before the program runs.
    """
    widths = (context.type(op.inputs[1]).shape[3], op.type.shape[3])
    if not all(isinstance(width, int) for width in widths):
        raise UnsupportedError("the width of its heads is not a number", where)
    most = max(int(width) for width in widths if isinstance(width, int))
    if most > _MOST_WIDTH:
        raise UnsupportedError(f"heads of {most} elements; the kernels end at {_MOST_WIDTH}", where)
    fitting = [width for width in TILED_WIDTHS if most <= width]
    return fitting[0] if fitting else -(-most // _WARP_STEP) * _WARP_STEP


def _check(context: Context, op: Op, where: tuple[str, str]) -> str:
    """The expansion of an attention that there is a kernel for."""
    implementation = context.expansion(op, "attention", IMPLEMENTATIONS)
    dtypes = {context.type(name).dtype for name in (*op.inputs[:3], op.result)}
    if len(dtypes) > 1 or op.type.dtype not in STORAGE:
        names = ", ".join(sorted(dtype.value for dtype in dtypes))
        raise UnsupportedError(f"there is no attention kernel for {names}", where)
    allowed = (DType.BOOL, DType.F32, op.type.dtype)
    if len(op.inputs) == 4 and context.type(op.inputs[3]).dtype not in allowed:
        found = context.type(op.inputs[3]).dtype.value
        raise UnsupportedError(f"its mask is {found}; bool or numbers are read", where)
    refuse_tiled(context, op)
    is_half, is_hopper = op.type.dtype in (DType.BF16, DType.F16), context.gpu.arch == "90a"
    width = padded_width(context, op, where)
    if implementation == "wgmma" and not (is_half and is_hopper and width <= WGMMA_WIDTH):
        found = f"{op.type.dtype.value}, heads of {width}, on {context.gpu.name}"
        scope = IMPLEMENTATIONS[implementation]
        raise UnsupportedError(f"attention by wgmma is for {scope}; this is {found}", where)
    return implementation


def _choice(
    context: Context,
    op: Op,
    implementation: str,
    width: int,
    arrays: Mapping[str, dace.data.Array],
) -> tuple[str, KernelRecord]:
    """The family of kernels, and which of them an attention takes as far as is known here."""
    native = _record(context, op, width)
    if implementation == "native":
        return "attention", native
    unfit = _why_not_wgmma(arrays)
    if unfit:
        return "attention", replace(native, reason=f"{unfit}: not by wgmma; {native.reason}")
    reason = (
        "warp groups of 64 rows, tiles of 128 keys by TMA; what has fewer rows, few tiles, or an "
        "address or stride that is no multiple of 16 bytes is left to mma.sync when it runs"
    )
    name = f"native attention {op.type.dtype.value} {max(width, 64)} by wgmma"
    return "attention_wgmma", KernelRecord(op, name, reason)


def _why_not_wgmma(arrays: Mapping[str, dace.data.Array]) -> str:
    """What is known to rule out warp groups; empty if nothing is."""
    q, k = arrays["_q"], arrays["_k"]
    rows = q.shape[1] // k.shape[1] * q.shape[2]
    if is_static(rows) and int(rows) < _LEAST_WGMMA_ROWS:
        return f"{int(rows)} rows of a key head are less than {_LEAST_WGMMA_ROWS}"
    for connector in ("_q", "_k", "_v"):
        *outer, inner = arrays[connector].strides
        if is_static(inner) and int(inner) != 1:
            return f"the elements of a row of {connector[1:]} are {int(inner)} apart"
        pack = CHUNK_BYTES // arrays[connector].dtype.bytes
        for extent, stride in zip(arrays[connector].shape, outer, strict=False):
            if is_static(extent) and int(extent) == 1:
                continue
            if is_static(stride) and int(stride) % pack:
                return f"rows of {connector[1:]} are not aligned to 16 bytes"
    return ""


def _fields(op: Op, arrays: Mapping[str, dace.data.Array]) -> str:
    q, k, v, o = (arrays[connector] for connector in ("_q", "_k", "_v", "_o"))
    batch, heads, queries, width = q.shape
    keys, value_width = k.shape[2], v.shape[3]
    sizes = (batch, heads, k.shape[1], queries, keys, width, value_width)

    fields = [", ".join(map(text, sizes))]
    fields += [strided(c, array.strides) for c, array in (("_q", q), ("_k", k), ("_v", v))]
    fields.append(strided("_o", o.strides[:3]))
    if "_mask" in arrays:
        mask = broadcast_strides(arrays["_mask"], [batch, heads, queries, keys])
        fields.append(strided("_mask", mask))
    else:
        fields.append("nullptr, {0, 0, 0, 0}")
    return ", ".join([*fields, f"{float(op.attr('scale'))!r}f"])


def _record(context: Context, op: Op, width: int) -> KernelRecord:
    dtype = op.type.dtype
    if width not in TILED_WIDTHS or dtype is DType.F64:
        reason = f"no tiles for heads of {width} elements of {dtype.value}: a warp a row"
        return KernelRecord(op, f"native attention {dtype.value} by warps", reason)
    how = "float tiles of 64 x 32" if dtype is DType.F32 else "tensor cores, tiles of 64 keys"
    reason = f"{how}, online softmax; keys split among blocks where rows are few"
    return KernelRecord(op, f"native attention {dtype.value} {width}", reason)
