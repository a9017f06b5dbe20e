// Numbers of fp8 times their scale, as wide as a product takes them: E4M3 without infinities, and E5M2, with one scale for all or
// one for each row.
//
// A thread has one access of values that lie side by side: 16 bytes of the output, or one value where rows or operands do not
// allow that. The product with the scale is rounded to f32 and then to the output, as where weights are widened on the CPU.
#include "device.cuh"

namespace {

constexpr unsigned THREADS = 256;

template <class T>
struct Widening {
    Global<const unsigned char> numbers;  // [rows, columns]
    Global<const float> scales;  // null: `scale` for all; [rows]
    Global<T> output;  // [rows, columns]
    unsigned accesses;
    unsigned columns;
    unsigned is_e5m2;
    float scale;
};

// What a byte stands for. E5M2 is the upper half of an f16. E4M3 has an exponent that is less by 8, and all ones are not a number.
__device__ __forceinline__ float number_of(unsigned byte, bool is_e5m2) {
    const unsigned sign = byte & 0x80, magnitude = byte & 0x7f;
    const unsigned wide = is_e5m2 ? magnitude << 8 : magnitude == 0x7f ? 0x7e00 : magnitude << 7;
    const unsigned short bits = sign << 8 | wide;
    f16 half;
    memcpy(&half, &bits, sizeof half);
    return to_float(half) * (is_e5m2 ? 1.0f : 256.0f);
}

template <class T, int N>
__device__ __forceinline__ void widen(const Widening<T>& p) {
    const unsigned access = blockIdx.x * THREADS + threadIdx.x;
    if (access >= p.accesses) return;
    const size_t place = size_t(access) * N;
    const Pack<unsigned char, N> numbers = load<N, unsigned char>(p.numbers + place);
    const float scale = p.scales == nullptr ? p.scale : p.scales[place / p.columns];
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.set(i, __fmul_rn(number_of(numbers.values[i], p.is_e5m2), scale));
    store<N, T>(p.output + place, result);
}

}  // namespace

KERNEL(widen_f32, THREADS, (widen<float, WIDEST<float>>), Widening<float>)
KERNEL(widen_f16, THREADS, (widen<f16, WIDEST<f16>>), Widening<f16>)
KERNEL(widen_bf16, THREADS, (widen<bf16, WIDEST<bf16>>), Widening<bf16>)
KERNEL(widen_any_f32, THREADS, (widen<float, 1>), Widening<float>)
KERNEL(widen_any_f16, THREADS, (widen<f16, 1>), Widening<f16>)
KERNEL(widen_any_bf16, THREADS, (widen<bf16, 1>), Widening<bf16>)
