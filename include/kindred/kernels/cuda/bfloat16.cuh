#pragma once
// Elements of maps that may be BF16: kernels compute with them in float.

#include <type_traits>

#include <kindred/core/bfloat16.hpp>
#include <kindred/core/map.hpp>
#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

__device__ inline float widened(BFloat16 x) { return to_float(x); }
__device__ inline float widened(float x) { return x; }
__device__ inline double widened(double x) { return x; }

/// The bits of to_bfloat16(), by the instruction where there is one; of a NaN it keeps no bits.
__device__ inline BFloat16 rounded(float x) {
#ifdef __CUDA_ARCH__
  float normal;  // a subnormal becomes the zero of its sign
  std::uint16_t bits;
  asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(normal) : "f"(x), "f"(-0.0f));
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(normal));
  return {bits};
#else
  return to_bfloat16(x);
#endif
}

/// v as an element of Y.
template <class Y>
__device__ Y stored_as(ComputeOf<Y> v) {
  if constexpr (std::is_same_v<Y, BFloat16>)
    return rounded(v);
  else
    return v;
}

/// `width` neighbours at p, see load_pack, to compute with.
template <int width, class X>
__device__ Pack<ComputeOf<X>, width> load_widened(const X* p) {
  const auto stored = load_pack<width>(p);
  Pack<ComputeOf<X>, width> v;
#pragma unroll
  for (int j = 0; j < width; ++j) v.value[j] = widened(stored.value[j]);
  return v;
}
template <int width, class Y>
__device__ void store_rounded(Y* p, const Pack<ComputeOf<Y>, width>& v) {
  Pack<Y, width> stored;
#pragma unroll
  for (int j = 0; j < width; ++j) stored.value[j] = stored_as<Y>(v.value[j]);
  store_pack<width>(p, stored);
}

/// Channels of one thread where threads work on neighbouring channels: of BF16 maps two, so that a
/// warp moves as many bytes by one instruction as of float.
template <class X>
inline constexpr int channel_lanes = std::is_same_v<X, BFloat16> ? 2 : 1;

/// Whether one of these types of elements is BF16.
template <class... E>
inline constexpr bool any_bfloat16 = (std::is_same_v<E, BFloat16> || ...);

struct Convert {
  template <class Y, class X>
  __device__ void operator()(Y& y, X x) const {
    y = stored_as<Y>(widened(x));
  }
};

/// x as an array of To: itself, or a copy in `memory`, which this makes.
template <class To, class From>
const To* converted(Context& ctx, std::int64_t n, const From* x,
                    [[maybe_unused]] Tensor<To>& memory) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else {
    memory = ctx.make<To>({n}, "converted factor");
    transform(ctx, "convert", n, Convert{}, memory.data, x);
    return memory.data;
  }
}

}  // namespace kindred::cuda
