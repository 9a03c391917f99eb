// Attention of the query heads that share one key head: softmax(q·kᵀ·scale + mask)·v.
//
// The queries of all these heads are rows of one matrix, cut into panels of 64: a task. Scores
// never leave the cache; all strides but the output's last one are free, so transposed views and
// slices of one product need no copies. Infinite and invalid scores give what the definition
// gives; a row that sees no key gives zeros.
#pragma once

#include "attention_panel.h"
#include "attention_rows.h"

namespace dfc::attention {

inline long tasks(const Sizes& size) { return (size.group * size.queries + PANEL - 1) / PANEL; }

// Task `index` of one key head. q, mask and o point to the first query head of the group.
template <class T, class Mask>
void task(long index, const Sizes& size, T scale, bool causal, Matrix<const T> q, long q_head,
          Matrix<const T> k, Matrix<const T> v, const Mask& mask, Matrix<T> o, long o_head) {
  if (FewRows<T, Mask>::suit(size, q, k)) {
    FewRows<T, Mask> rows(size, causal, mask);
    rows.run(scale, q, q_head, k, v, o, o_head);
    return;
  }
  // Above the diagonal nothing is computed: neighbours take from both ends, so that any range of
  // tasks is as much work as another.
  if (causal) index = index % 2 ? tasks(size) - 1 - index / 2 : index / 2;
  const long row0 = index * PANEL;
  const long rows = std::min(PANEL, size.group * size.queries - row0);
  Panel<T, Mask> panel(row0, rows, size, causal, mask);
  panel.run(scale, q, q_head, k, v, o, o_head);
}

}  // namespace dfc::attention
