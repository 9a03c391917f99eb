// What is done to a product's accumulators before they are stored: a chain of stages.
//
// A stage takes a vector of the result, its row and first column, and how many of its lanes count;
// it must not read behind them. Epilogue{ColumnScale{s}, Bias{b}, Gelu{}} applies them in order.
// A stage that reads a matrix can also be asked to fetch a part of it ahead of its use.
#pragma once

#include <tuple>

#include "math.h"
#include "vec.h"

namespace dfc {

namespace detail {

template <class T>
DFC_INLINE vec<T> load_counted(const T* p, int count) {
  return count == lanes<T> ? load(p) : load_first(p, count);
}

// Asks for a part of a matrix: to read it soon, or, where `write` is 1, to overwrite it.
template <int write, class T>
DFC_INLINE void prefetch_rows(const T* p, long row_stride, int rows, int columns) {
  for (int r = 0; r < rows; ++r) {
    const char* row = reinterpret_cast<const char*>(p + r * row_stride);
    for (long i = 0; i < columns * long(sizeof(T)); i += 64) __builtin_prefetch(row + i, write, 3);
  }
}

}  // namespace detail

// x · s[column]: the scales of int8 columns.
template <class T>
struct ColumnScale {
  const T* scale;
  DFC_INLINE vec<T> operator()(vec<T> x, long, long column, int count) const {
    return x * detail::load_counted(scale + column, count);
  }
};

// x · s[0].
template <class T>
struct Scale {
  const T* scale;
  DFC_INLINE vec<T> operator()(vec<T> x, long, long, int) const { return x * *scale; }
};

// x + b[column].
template <class T>
struct Bias {
  const T* bias;
  DFC_INLINE vec<T> operator()(vec<T> x, long, long column, int count) const {
    return x + detail::load_counted(bias + column, count);
  }
};

// x + r[row, column].
template <class T>
struct AddResidual {
  const T* residual;
  long row_stride;
  DFC_INLINE vec<T> operator()(vec<T> x, long row, long column, int count) const {
    return x + detail::load_counted(residual + row * row_stride + column, count);
  }
  DFC_INLINE void prefetch(long row, int rows, long column, int columns) const {
    detail::prefetch_rows<0>(residual + row * row_stride + column, row_stride, rows, columns);
  }
};

// x · r[row, column].
template <class T>
struct MulResidual {
  const T* residual;
  long row_stride;
  DFC_INLINE vec<T> operator()(vec<T> x, long row, long column, int count) const {
    return x * detail::load_counted(residual + row * row_stride + column, count);
  }
  DFC_INLINE void prefetch(long row, int rows, long column, int columns) const {
    detail::prefetch_rows<0>(residual + row * row_stride + column, row_stride, rows, columns);
  }
};

#define DFC_ACTIVATION(Name, function)               \
  struct Name {                                      \
    template <class V>                               \
    DFC_INLINE V operator()(V x, long, long, int) const { \
      return function(x);                            \
    }                                                \
  };
DFC_ACTIVATION(Gelu, gelu)
DFC_ACTIVATION(GeluTanh, gelu_tanh)
DFC_ACTIVATION(Silu, silu)
DFC_ACTIVATION(Relu, relu)
DFC_ACTIVATION(Tanh, tanh)
DFC_ACTIVATION(Sigmoid, sigmoid)
#undef DFC_ACTIVATION

namespace detail {

template <class Stage>
DFC_INLINE void prefetch_stage(const Stage& stage, long row, int rows, long column, int columns) {
  if constexpr (requires { stage.prefetch(row, rows, column, columns); })
    stage.prefetch(row, rows, column, columns);
}

}  // namespace detail

template <class... Stages>
struct Epilogue {
  static constexpr bool active = sizeof...(Stages) > 0;
  std::tuple<Stages...> stages;

  Epilogue() = default;
  explicit Epilogue(const Stages&... all)
    requires(sizeof...(Stages) > 0)
      : stages(all...) {}

  template <class V>
  DFC_INLINE V operator()(V x, long row, long column, int count) const {
    std::apply(
        [&](const Stages&... stage) __attribute__((always_inline)) {
          ((x = stage(x, row, column, count)), ...);
        },
        stages);
    return x;
  }

  // Fetches what the stages are going to read for a part of the result.
  DFC_INLINE void prefetch(long row, int rows, long column, int columns) const {
    std::apply(
        [&](const Stages&... stage) __attribute__((always_inline)) {
          (detail::prefetch_stage(stage, row, rows, column, columns), ...);
        },
        stages);
  }
};

}  // namespace dfc
