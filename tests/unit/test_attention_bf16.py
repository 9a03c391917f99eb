"""Attention of bfloat16 on matrix tiles, against float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from compile_kernels import call, compile_kernels, runnable_targets
from test_attention import MASKS, Case

SOURCE = """#include "cpu/attention_bf16.h"
using namespace dfc::attention;
using dfc::bf16;

template <class M>
void attend(const long* n, double scale, const long* strides, const bf16* q, const bf16* k,
            const bf16* v, const M& mask, bf16* o) {
  if (!dfc::amx::permitted()) return;
  const long batch = n[0], heads = n[1], key_heads = n[2], causal = n[7], group = heads / key_heads;
  const long *sq = strides, *sk = sq + 4, *sv = sk + 4, *so = sv + 4, *sm = so + 4;
  const Sizes size{n[3], n[4], n[5], n[6], group};
  for (long b = 0; b < batch; ++b)
    for (long h = 0; h < key_heads; ++h)
      for (long panel = 0; panel * PANEL < group * n[3]; ++panel) {
        M local = mask;
        if constexpr (!std::is_same_v<M, NoMask>) local.data += b * sm[0] + h * group * sm[1];
        tile_task(panel, size, float(scale), causal,
                  Matrix<const bf16>{q + b * sq[0] + h * group * sq[1], sq[2], sq[3]}, sq[1],
                  Matrix<const bf16>{k + b * sk[0] + h * sk[1], sk[2], sk[3]},
                  Matrix<const bf16>{v + b * sv[0] + h * sv[1], sv[2], sv[3]}, local,
                  Matrix<bf16>{o + b * so[0] + h * group * so[1], so[2], so[3]}, so[1]);
      }
}

#define ATTEND(name, M, mask)                                                                   \\
  extern "C" void name(const long* n, double scale, const long* s, const bf16* q, const bf16* k, \\
                       const bf16* v, const M* m, bf16* o) {                                    \\
    (void)m;                                                                                    \\
    attend(n, scale, s, q, k, v, mask, o);                                                      \\
  }
ATTEND(none, float, NoMask{})
#define STRIDES s[18], s[19], s[17]
ATTEND(additive, float, (AdditiveMask<float>{m, STRIDES}))
ATTEND(boolean, std::int8_t, (BoolMask<float>{m, STRIDES}))
"""
# batch, heads, key heads, queries, keys, width, value width
SIZES = [
    (2, 3, 3, 128, 128, 32, 32),
    (1, 2, 1, 77, 77, 64, 64),
    (1, 4, 2, 1, 300, 64, 64),
    (1, 2, 2, 5, 260, 32, 96),
    (1, 1, 1, 65, 129, 256, 256),
    (1, 2, 2, 31, 7, 32, 32),
    (1, 4, 1, 20, 33, 96, 64),
    (1, 1, 1, 1, 1, 32, 32),
]
TILES = [name for name in runnable_targets(extensions=True) if name.endswith("+amx")]


def run(case: Case, target: str) -> np.ndarray:
    """The kernel's result for operands rounded to bfloat16, which the case keeps."""
    rounded = [x.astype(ml_dtypes.bfloat16) for x in case.inputs]
    case.inputs = [x.astype(np.float32) for x in rounded]
    output = np.full(case.output.transpose(0, 2, 1, 3).shape, 77, ml_dtypes.bfloat16)
    output = output.transpose(0, 2, 1, 3)
    kind = "none" if case.mask is None else "boolean" if case.mask.dtype == bool else "additive"
    scores = (*case.sizes[:2], *case.sizes[3:5])
    mask = np.broadcast_to(case.mask if case.mask is not None else np.zeros(1), scores)
    arrays = (*rounded, output, mask)
    strides = np.array([s // x.itemsize for x in arrays for s in x.strides], np.int64)
    sizes = np.array([*case.sizes, case.causal], np.int64)
    library, _ = compile_kernels(SOURCE, target)
    halves = [x.view(np.uint16) for x in rounded]
    call(library[kind], sizes, case.scale, strides, *halves, case.mask, output.view(np.uint16))
    return output.astype(np.float64)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", TILES)
def test_kernel(target: str, mask: str, causal: bool) -> None:
    for sizes in SIZES:
        for layout in ("C", "tokens first"):
            case = Case(sizes, mask, causal, layout)
            found, expected = run(case, target), case.expected()
            # Weights and the result are rounded to 8 bits each, and weights add up to 1.
            largest = np.abs(case.inputs[2]).max(axis=-2, keepdims=True)
            group = sizes[1] // sizes[2]
            allowed = 2.0**-8 * np.repeat(largest, group, axis=1) + 1e-5
            assert np.all(np.abs(found - expected) <= allowed)


@pytest.mark.parametrize("target", TILES)
def test_not_a_number_spoils_its_row_alone(target: str) -> None:
    case = Case((1, 1, 1, 40, 300, 32, 32), "none", False)
    case.inputs[0][0, 0, 3, 3] = np.nan
    result = run(case, target)
    assert np.all(np.isnan(result[0, 0, 3]))
    assert np.all(np.isfinite(np.delete(result[0, 0], 3, axis=0)))
