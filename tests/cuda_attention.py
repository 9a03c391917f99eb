"""Attentions for the kernels of GPUs in emulation, and what they give in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

from tests.cuda_emulation import Library
from tests.tolerances import assert_close

DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}
STORAGE = {
    "float64": "double",
    "float32": "float",
    "bfloat16": "__nv_bfloat16",
    "float16": "__half",
}
MASKS = {"none": "NoMask", "bool": "bool", "float": "float"}
_SOURCE = r"""
#include "cuda/FAMILY.cuh"
using namespace dfc::cuda;

template <class T, class M, int WIDTH, bool CAUSAL>
int run(const long* n, const T* q, const T* k, const T* v, T* o, const M* mask, double scale) {
  Attention<T, M> p{n[0], n[1], n[2], n[3], n[4], n[5], n[6], q, {}, k, {}, v, {}, o, {}, mask, {},
                    float(scale)};
  const long* s = n + 7;
  for (long* strides : {p.q_strides, p.k_strides, p.v_strides})
    for (int i = 0; i < 4; ++i) strides[i] = *s++;
  for (int i = 0; i < 3; ++i) p.o_strides[i] = *s++;
  for (int i = 0; i < 4; ++i) p.mask_strides[i] = *s++;
  return FAMILY<T, M, WIDTH, CAUSAL>(nullptr, p);
}
#define ONE(name, T, M, width, causal)                                                          \
  extern "C" int name(const long* n, const T* q, const T* k, const T* v, T* o, const void* mask, \
                      double scale) {                                                           \
    return run<T, M, width, causal>(n, q, k, v, o, static_cast<const M*>(mask), scale);         \
  }
"""


def attention_source(family: str, instances: Sequence[tuple[str, str, int, bool]]) -> str:
    """C functions of a family of kernels, each by type, mask, padded width and causality."""
    lines = [
        f"ONE({dtype}_{mask}_{width}_{int(causal)}, {STORAGE[dtype]}, {MASKS[mask]}, {width}, "
        f"{str(causal).lower()})"
        for dtype, mask, width, causal in instances
    ]
    return _SOURCE.replace("FAMILY", family) + "\n".join(lines)


@dataclass
class Case:
    """An attention: arrays of logical shape [batch, heads, rows, width] in any order of memory.

    Attributes:
        kernels: made from `attention_source`.
        padded: widths that its instances are padded to.
    """

    kernels: Library
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    mask: np.ndarray | None = None
    causal: bool = False
    padded: tuple[int, ...] = (32, 64, 128, 160)
    scale: float = 0.25

    @staticmethod
    def of(
        kernels: Library,
        dtype: str,
        heads: tuple[int, int],
        queries: int,
        keys: int,
        widths: tuple[int, int],
        *,
        batch: int = 1,
        causal: bool = False,
        mask: np.ndarray | None = None,
        padded: tuple[int, ...] = (32, 64, 128, 160),
    ) -> Case:
        """An attention of random operands; see `operands`."""
        q, k, v = operands(dtype, heads, queries, keys, widths, batch)
        return Case(kernels, q, k, v, mask, causal, padded)

    def run(self) -> np.ndarray:
        """The kernel's result."""
        q, k, v = (self._placed(x) for x in (self.q, self.k, self.v))
        shape = (*q.shape[:3], v.shape[3])
        o = self.kernels.array(shape, q.dtype)
        mask, kind = None, "none"
        if self.mask is not None:
            mask, kind = self._placed(self.mask), "bool" if self.mask.dtype == np.bool_ else "float"
            mask_strides = [
                0 if self.mask.shape[i] == 1 else s // mask.itemsize
                for i, s in enumerate(mask.strides)
            ]
        else:
            mask_strides = [0] * 4
        strides = [s // q.itemsize for x in (q, k, v) for s in x.strides]
        strides += [s // q.itemsize for s in o.strides[:3]]
        sizes = [*q.shape[:2], k.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3]]
        numbers = self.kernels.copy(np.array([*sizes, *strides, *mask_strides], np.int64))
        most = max(q.shape[3], v.shape[3])
        width = 64 if q.dtype == np.float64 else next(w for w in self.padded if most <= w)
        name = f"{q.dtype.name}_{kind}_{width}_{int(self.causal)}"
        arrays = [memory(x) for x in (q, k, v)]
        last = None if mask is None else memory(mask)
        self.kernels.call(name, numbers, *arrays, o, last, self.scale)
        return o

    def expected(self) -> np.ndarray:
        """The same in float64, by torch; zeros for a row that sees nothing."""
        q, k, v = (torch.from_numpy(x.astype(np.float64)) for x in (self.q, self.k, self.v))
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        scores = q @ k.mT * self.scale
        hidden = -torch.inf
        if self.mask is not None:
            mask = torch.from_numpy(self.mask.astype(np.float64))
            shown = mask != 0 if self.mask.dtype == np.bool_ else mask != hidden
            added = scores if self.mask.dtype == np.bool_ else scores + mask
            scores = torch.where(shown, added, hidden)
        if self.causal:
            queries, keys = scores.shape[2:]
            seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
            scores = torch.where(seen, scores, hidden)
        weights = torch.softmax(scores, -1)
        weights = torch.where((scores == hidden).all(-1, keepdim=True), 0.0, weights)
        return (weights @ v).numpy().astype(self.q.dtype)

    def check(self) -> None:
        """The kernel's result against torch's."""
        assert_close(self.run(), self.expected())

    def _placed(self, x: np.ndarray) -> np.ndarray:
        """`x` with the same strides in the emulation's memory."""
        order = np.argsort([-s for s in x.strides], kind="stable")
        packed = self.kernels.copy(np.ascontiguousarray(x.transpose(order)))
        return packed.transpose(np.argsort(order))


def memory(x: np.ndarray) -> np.ndarray:
    """The contiguous array behind a transposed one."""
    order = np.argsort([-s for s in x.strides], kind="stable")
    return x.transpose(order)


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Normally distributed numbers, the same ones for the same shape and seed."""
    rng = np.random.default_rng((seed, *shape))
    return rng.normal(size=shape).astype(DTYPES[dtype])


def operands(
    dtype: str,
    heads: tuple[int, int],
    queries: int,
    keys: int,
    widths: tuple[int, int],
    batch: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q, k and v, for (query heads, key heads) and (width of q and k, width of v)."""
    return (
        normal(batch, heads[0], queries, widths[0], dtype=dtype),
        normal(batch, heads[1], keys, widths[0], dtype=dtype, seed=1),
        normal(batch, heads[1], keys, widths[1], dtype=dtype, seed=2),
    )
