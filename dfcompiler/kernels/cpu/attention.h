// Attention of the query heads that share one key head: softmax(q·kᵀ·scale + mask)·v.
//
// The queries of all these heads are rows of one matrix, those of one token side by side, cut into
// panels of 64: a task. Scores never leave the cache; all strides but the output's last one are
// free, so transposed views and slices of one product need no copies. Infinite and invalid scores
// give what the definition gives; a row that sees no key gives zeros.
#pragma once

#include "attention_panel.h"
#include "attention_rows.h"

namespace dfc::attention {

inline long tasks(const Sizes& size) { return (size.group * size.queries + PANEL - 1) / PANEL; }

// The panel that task `index` computes. Above the diagonal nothing is computed: neighbours take
// panels from both ends, so that any range of tasks is as much work as another of its length.
inline long panel_of(long index, long panels, bool causal) {
  return !causal ? index : index % 2 ? panels - 1 - index / 2 : index / 2;
}

// Task `index` of one key head. q, mask and o point to the first query head of the group.
template <class T, class Mask>
void task(long index, const Sizes& size, T scale, bool causal, Matrix<const T> q, long q_head,
          Matrix<const T> k, long k_head, Matrix<const T> v, long v_head, const Mask& mask,
          Matrix<T> o, long o_head) {
  if (FewRows<T, Mask>::suit(size, q, k)) {
    FewRows<T, Mask> rows(size, causal, mask);
    rows.run(scale, q, q_head, k, v, o, o_head);
    return;
  }
  const long panels = tasks(size), all = size.group * size.queries;
  const long row0 = panel_of(index, panels, causal) * PANEL;
  Panel<T, Mask> panel(row0, std::min(PANEL, all - row0), size, causal, mask);
  // While one panel is computed, what this thread needs next is fetched: where the output goes,
  // the next panel's queries, and a share of the next head's keys and values.
  Later& later = panel.later();
  const auto add_rows = [&](auto x, long head_stride, long row, long width) {
    const long first = row / size.group, end = (std::min(row + PANEL, all) - 1) / size.group + 1;
    later.add(x.data + first * x.row_stride, x.row_stride, end - first, width, size.group,
              head_stride);
  };
  add_rows(o, o_head, row0, size.value_width);
  const bool last = index + 1 == panels;
  const Matrix<const T> next{q.data + (last ? size.group * q_head : 0), q.row_stride, 1};
  add_rows(next, q_head, panel_of(last ? 0 : index + 1, panels, causal) * PANEL, size.width);
  const long from = index * size.keys / panels, to = (index + 1) * size.keys / panels;
  later.add(k.data + k_head + from * k.row_stride, k.row_stride, to - from, size.width);
  later.add(v.data + v_head + from * v.row_stride, v.row_stride, to - from, size.value_width);
  panel.run(scale, q, q_head, k, v, o, o_head);
}

}  // namespace dfc::attention
