// What is done to a product's accumulators before they are stored: a chain of stages.
//
// A stage takes a vector of the result, its row and first column, and how many of its lanes count;
// it must not read behind them. Epilogue{ColumnScale{s}, Bias{b}, Gelu{}} applies them in order.
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
};

// x · r[row, column].
template <class T>
struct MulResidual {
  const T* residual;
  long row_stride;
  DFC_INLINE vec<T> operator()(vec<T> x, long row, long column, int count) const {
    return x * detail::load_counted(residual + row * row_stride + column, count);
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
};

}  // namespace dfc
