// Layer norm and the modulation of adaLN, in one read and one write of each value:
// `((x - mean) / sqrt(variance + eps) * weight + bias) * (1 + scale) + shift`, in f32, rounded once.
//
// A block has a row. `layer_norm` holds the row in registers, up to `HELD` accesses of 16 bytes by each thread, so mean and
// variance are taken one after the other without reading anything twice. `layer_norm_any` takes rows of every length and
// place, value by value, and reads them three times (from the caches, but for the first time).
#include "sums.cuh"

namespace {

constexpr int HELD = 4;
constexpr int THREADS = 256;

template <class T>
struct LayerNorm {
    Global<const T> x;
    Global<const T> weight;  // null without weight and bias
    Global<const T> bias;
    Global<const T> scale;  // null without scale and shift
    Global<const T> shift;
    Global<T> output;
    unsigned size;
    unsigned tokens;  // that have the same scale and shift
    unsigned stride;  // from one scale to the next
    float eps;
};

// What becomes of normed values.
template <class T, int N>
__device__ __forceinline__ void finish(const LayerNorm<T>& norm, unsigned row, unsigned first, float (&values)[N]) {
    if (norm.weight != nullptr) {
        const Pack<T, N> weight = load<N, T>(norm.weight + first), bias = load<N, T>(norm.bias + first);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = values[i] * weight[i] + bias[i];
    }
    if (norm.scale != nullptr) {
        const size_t start = size_t(row / norm.tokens) * norm.stride + first;
        const Pack<T, N> scale = load<N, T>(norm.scale + start), shift = load<N, T>(norm.shift + start);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = values[i] * (1.0f + scale[i]) + shift[i];
    }
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.set(i, values[i]);
    store<N, T>(norm.output + (size_t(row) * norm.size + first), result);
}

template <class T>
__device__ __forceinline__ void layer_norm(const LayerNorm<T>& norm) {
    constexpr int N = WIDEST<T>;
    SHARED_ARRAY(float, partial, 2 * MOST_WARPS);
    const unsigned row = blockIdx.x, packs = norm.size / N;
    const Global<const T> x = norm.x + size_t(row) * norm.size;
    Pack<T, N> held[HELD];
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        const unsigned pack = threadIdx.x + index * blockDim.x;
        if (pack < packs) held[index] = load<N, T>(x + pack * N);
    }
    float sum = 0.0f;
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        if (threadIdx.x + index * blockDim.x >= packs) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) sum += held[index][i];
    }
    const float mean = block_sum(sum, partial) / float(norm.size);
    float squares = 0.0f;
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        if (threadIdx.x + index * blockDim.x >= packs) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) squares += (held[index][i] - mean) * (held[index][i] - mean);
    }
    const float variance = block_sum(squares, partial + MOST_WARPS) / float(norm.size);
    const float factor = rsqrtf(variance + norm.eps);
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        const unsigned pack = threadIdx.x + index * blockDim.x;
        if (pack >= packs) continue;
        float values[N];
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = (held[index][i] - mean) * factor;
        finish<T, N>(norm, row, pack * N, values);
    }
}

template <class T>
__device__ __forceinline__ void layer_norm_any(const LayerNorm<T>& norm) {
    SHARED_ARRAY(float, partial, 2 * MOST_WARPS);
    const unsigned row = blockIdx.x;
    const Global<const T> x = norm.x + size_t(row) * norm.size;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < norm.size; i += blockDim.x) sum += to_float(x[i]);
    const float mean = block_sum(sum, partial) / float(norm.size);
    float squares = 0.0f;
    for (unsigned i = threadIdx.x; i < norm.size; i += blockDim.x) {
        const float away = to_float(x[i]) - mean;
        squares += away * away;
    }
    const float variance = block_sum(squares, partial + MOST_WARPS) / float(norm.size);
    const float factor = rsqrtf(variance + norm.eps);
    for (unsigned i = threadIdx.x; i < norm.size; i += blockDim.x) {
        float values[1] = {(to_float(x[i]) - mean) * factor};
        finish<T, 1>(norm, row, i, values);
    }
}

}  // namespace

KERNEL(layer_norm_f32, THREADS, layer_norm, LayerNorm<float>)
KERNEL(layer_norm_f16, THREADS, layer_norm, LayerNorm<f16>)
KERNEL(layer_norm_bf16, THREADS, layer_norm, LayerNorm<bf16>)
KERNEL(layer_norm_any_f32, THREADS, layer_norm_any, LayerNorm<float>)
KERNEL(layer_norm_any_f16, THREADS, layer_norm_any, LayerNorm<f16>)
KERNEL(layer_norm_any_bf16, THREADS, layer_norm_any, LayerNorm<bf16>)
