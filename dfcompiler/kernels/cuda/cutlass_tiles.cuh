// The kernels of CUTLASS 3 for sm_90a: TMA, warp specialization, wgmma, and our epilogue.
//
//   tile    BM × BN × BK    schedule                              stages  shared bytes  flops a byte
//   wide    128 × 256 × 64  two groups share a tile, cluster 2×1  4       230,400       128
//   narrow  64 × 128 × 64   each group has a tile of its own      8       214,016       43
//
// Of three groups of 128 threads one copies by TMA and two multiply, 168 registers a thread before
// they are shared anew, none spilled. Blocks stay and take one tile after the other. "Flops a byte"
// are of L2, with what a cluster reads once.
//
//   sums ─┐
//   bias ─┼─▶ alpha · sum + bias ─▶ activation ─▶ add or multiply ─▶ rounded ─▶ shared ─▶ TMA ─▶ d
//   c ────┘   (floats; the arithmetic of gemm_finish.cuh)
//
// nvcc takes half a minute for one of these kernels, nearly all of it for templates. So activation
// and residual are arguments, looked at once for each 16 sums of a thread, and every program with
// the same element type and contiguous axis of B has the same two kernels. Without a residual the
// warp that would copy c has nothing to do.
#pragma once

// CUTLASS asserts what `fits_cutlass` has checked; a library must not end its process.
#ifndef NDEBUG
#define NDEBUG
#endif

#include <cutlass/cutlass.h>
#include <cutlass/device_kernel.h>
#include <cutlass/gemm/collective/builders/sm90_gmma_builder.inl>
#include <cutlass/gemm/collective/sm90_mma_tma_gmma_ss_warpspecialized.hpp>

// The epilogue's builder has no header for one architecture alone.
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal_decl.h>
#include <cutlass/gemm/kernel/sm90_gemm_tma_warpspecialized_cooperative.hpp>
#include <cutlass/gemm/kernel/sm90_gemm_tma_warpspecialized_pingpong.hpp>

#include <algorithm>
#include <type_traits>

#include "check.h"
#include "cutlass_tiles.h"
#include "gemm_finish.cuh"

namespace dfc::cuda {
namespace fusion = cutlass::epilogue::fusion;

struct CutlassFinish {
  float alpha;
  Activation activation;
  Residual residual;
};

template <Activation activation, class Values>
__device__ inline void activate_all(Values& values) {
#pragma unroll
  for (int i = 0; i < Values::kElements; ++i) values[i] = activate<activation>(values[i]);
}

template <class Values>
__device__ inline void activate_all(Values& values, Activation activation) {
  switch (activation) {
    case Activation::none: return;
    case Activation::gelu: return activate_all<Activation::gelu>(values);
    case Activation::gelu_tanh: return activate_all<Activation::gelu_tanh>(values);
    case Activation::silu: return activate_all<Activation::silu>(values);
    case Activation::relu: return activate_all<Activation::relu>(values);
    case Activation::tanh: return activate_all<Activation::tanh>(values);
    case Activation::sigmoid: return activate_all<Activation::sigmoid>(values);
  }
}

// A node of CUTLASS's epilogue tree: an array of sums, one of the bias and one of c become floats of
// d, which the node rounds.
template <class Values>
struct CutlassFinishNode {
  using Arguments = CutlassFinish;

  __device__ Values operator()(const Values& sums, const Values& bias, const Values& other,
                               const Arguments& finish) const {
    Values values;
#pragma unroll
    for (int i = 0; i < Values::kElements; ++i) values[i] = sums[i] * finish.alpha + bias[i];
    activate_all(values, finish.activation);
    if (finish.residual == Residual::add) {
#pragma unroll
      for (int i = 0; i < Values::kElements; ++i) values[i] += other[i];
    } else if (finish.residual == Residual::mul) {
#pragma unroll
      for (int i = 0; i < Values::kElements; ++i) values[i] *= other[i];
    }
    return values;
  }
};

// The tree: its root, and sums, bias and c as its leaves; c is copied where there is a residual.
template <class Shape, class T>
using CutlassNodes = fusion::Sm90EVT<
    fusion::Sm90Compute<CutlassFinishNode, T, float, cutlass::FloatRoundStyle::round_to_nearest>,
    fusion::Sm90AccFetch, fusion::Sm90RowBroadcast<0, Shape, T, float>, fusion::Sm90SrcFetch<T>>;

template <class Shape, class T>
struct CutlassTree : CutlassNodes<Shape, T> {
  using Base = CutlassNodes<Shape, T>;
  using Base::Base;

  __device__ bool is_C_load_needed() const {
    return cute::get<3>(Base::ops).params.residual != Residual::none;
  }
  __device__ bool is_producer_load_needed() const { return is_C_load_needed(); }
};

template <class T>
struct CutlassElement;
template <>
struct CutlassElement<__nv_bfloat16> {
  using type = cutlass::bfloat16_t;
};
template <>
struct CutlassElement<__half> {
  using type = cutlass::half_t;
};

template <class Element, class Tile, unsigned along>
struct CutlassKernel {
  static constexpr bool WIDE = Tile::BM == 128;
  using Shape = cute::Shape<cute::Int<Tile::BM>, cute::Int<Tile::BN>, cute::Int<Tile::BK>>;
  using Cluster = cute::Shape<cute::Int<Tile::CLUSTER>, cute::_1, cute::_1>;
  using Schedule =
      std::conditional_t<WIDE, cutlass::gemm::KernelTmaWarpSpecializedCooperative,
                         cutlass::gemm::KernelTmaWarpSpecializedPingpong>;
  using EpilogueSchedule =
      std::conditional_t<WIDE, cutlass::epilogue::TmaWarpSpecializedCooperative,
                         cutlass::epilogue::TmaWarpSpecialized>;
  using Rows = cutlass::layout::RowMajor;
  using RowsOfB = std::conditional_t<along == WIDTH, Rows, cutlass::layout::ColumnMajor>;
  static constexpr int CHUNK = 8;

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Shape, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, Element, Rows, CHUNK, Element,
      Rows, CHUNK, EpilogueSchedule, CutlassTree<Shape, Element>>::CollectiveOp;
  using Stages = cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
      sizeof(typename Epilogue::SharedStorage))>;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, Rows, CHUNK, Element, RowsOfB,
      CHUNK, float, Shape, Cluster, Stages, Schedule>::CollectiveOp;
  using type = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop,
                                                    Epilogue, cutlass::gemm::PersistentScheduler>;
};

inline cudaError_t cutlass_failed(const char* sentence) {
  explain_failure(sentence);
  return cudaErrorNotSupported;
}

// Whether the driver wrote a descriptor: CUTLASS leaves one that was refused as zeros.
inline bool is_encoded(const cute::TmaDescriptor* descriptor) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(descriptor);
  return std::any_of(bytes, bytes + sizeof *descriptor, [](unsigned char byte) { return byte; });
}

template <class Kernel>
cudaError_t start_cutlass(cudaStream_t stream, const typename Kernel::Arguments& arguments,
                          unsigned cluster) {
  // One tile after the other, each by one block: no partial sums, no room for them.
  if (!Kernel::can_implement(arguments) || Kernel::get_workspace_size(arguments) != 0)
    return cutlass_failed("CUTLASS does not implement a product with these extents");
  typename Kernel::Params params = Kernel::to_underlying_arguments(arguments, nullptr);
  if (!is_encoded(params.mainloop.tma_load_a.get_tma_descriptor()) ||
      !is_encoded(params.mainloop.tma_load_b.get_tma_descriptor()) ||
      !is_encoded(params.epilogue.tma_load_c.get_tma_descriptor()) ||
      !is_encoded(params.epilogue.tma_store_d.get_tma_descriptor()))
    return cutlass_failed("the CUDA driver refused to describe an operand of a product to TMA");
  const void* function = reinterpret_cast<const void*>(cutlass::device_kernel<Kernel>);
  const cudaError_t error =
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(Kernel::SharedStorageSize));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = cluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = Kernel::get_grid_shape(params);
  config.blockDim = Kernel::get_block_shape();
  config.dynamicSmemBytes = Kernel::SharedStorageSize;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  void* pointers[] = {&params};
  return cudaLaunchKernelExC(&config, function, pointers);
}

template <class T, class Tile, unsigned along>
cudaError_t cutlass_tiles(cudaStream_t stream, const CutlassProblem<T>& p, int multiprocessors) {
  using Element = typename CutlassElement<T>::type;
  using Kernel = typename CutlassKernel<Element, Tile, along>::type;
  auto of = [](auto* pointer) {
    using E = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(pointer)>>,
                                 const Element, Element>;
    return reinterpret_cast<E*>(pointer);
  };
  const auto rows = [](const CutlassStride& s) { return cute::make_stride(s[0], cute::_1{}, s[2]); };
  typename Kernel::StrideB b_stride;
  cute::get<along == WIDTH ? 1 : 0>(b_stride) = p.b_stride[along == WIDTH ? 1 : 0];
  cute::get<2>(b_stride) = p.b_stride[2];
  typename Kernel::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
  arguments.problem_shape = {p.shape[0], p.shape[1], p.shape[2], p.shape[3]};
  arguments.mainloop = {of(p.a), rows(p.a_stride), of(p.b), b_stride};
  // Without a residual c is described by d and not copied.
  const T* c = p.residual == Residual::none ? p.d : p.c;
  const CutlassStride& c_stride = p.residual == Residual::none ? p.d_stride : p.c_stride;
  arguments.epilogue = {{{}, {of(p.bias)}, {}, {p.alpha, p.activation, p.residual}},
                        of(c),
                        rows(c_stride),
                        of(p.d),
                        rows(p.d_stride)};
  arguments.hw_info.sm_count = multiprocessors;
  return start_cutlass<Kernel>(stream, arguments, Tile::CLUSTER);
}

}  // namespace dfc::cuda
