// Group norm in two halves: what a part of a feature map contributes to the statistics of a group, and the norm of channels with
// known statistics, with SiLU after it.
//
// `group_moments`: a block has a part of a group and reads it twice, the second time from the caches, so that squares are of
// differences from the part's own mean and lose no digits. The host merges the parts.
// `scale_shift`: a block has a piece of a channel, whose lines are whole; a thread has one access.
#include "activation.cuh"
#include "sums.cuh"

namespace {

constexpr unsigned THREADS = 256;

template <class T>
struct GroupMoments {
    Global<const T> x;  // [groups, length]
    Global<float> moments;  // [groups, parts, 2]: the mean of a part, and the squares of the differences from it
    unsigned length;
    unsigned part;  // values of a part but the last; a multiple of an access
};

template <class T, int N>
__device__ __forceinline__ void group_moments(const GroupMoments<T>& p) {
    SHARED_ARRAY(float, partial, 2 * MOST_WARPS);
    const unsigned start = blockIdx.x * p.part, end = min(start + p.part, p.length);
    const Global<const T> x = p.x + size_t(blockIdx.y) * p.length;
    float sum = 0.0f;
    for (unsigned i = start + threadIdx.x * N; i < end; i += THREADS * N) {
        const Pack<T, N> values = load<N, T>(x + i);
#pragma unroll
        for (int k = 0; k < N; ++k) sum += values[k];
    }
    const float mean = block_sum(sum, partial) / float(end - start);
    float squares = 0.0f;
    for (unsigned i = start + threadIdx.x * N; i < end; i += THREADS * N) {
        const Pack<T, N> values = load<N, T>(x + i);
#pragma unroll
        for (int k = 0; k < N; ++k) squares += (values[k] - mean) * (values[k] - mean);
    }
    squares = block_sum(squares, partial + MOST_WARPS);
    const Global<float> moments = p.moments + 2 * (size_t(blockIdx.y) * gridDim.x + blockIdx.x);
    if (threadIdx.x == 0) {
        moments[0] = mean;
        moments[1] = squares;
    }
}

template <class T>
struct ScaleShift {
    Global<const T> x;  // channels `stride` apart
    Global<const float> scale;  // of each channel
    Global<const float> shift;
    Global<T> output;  // [channels, pixels]
    unsigned pixels;
    unsigned stride;
    unsigned activation;
};

template <class T, int N>
__device__ __forceinline__ void scale_shift(const ScaleShift<T>& p) {
    const unsigned channel = blockIdx.y, first = (blockIdx.x * THREADS + threadIdx.x) * N;
    if (first >= p.pixels) return;
    const float scale = p.scale[channel], shift = p.shift[channel];
    const Pack<T, N> x = load<N, T>(p.x + (size_t(channel) * p.stride + first));
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.set(i, activated(p.activation, scale * x[i] + shift));
    store<N, T>(p.output + (size_t(channel) * p.pixels + first), result);
}

}  // namespace

KERNEL(group_moments_f32, THREADS, (group_moments<float, WIDEST<float>>), GroupMoments<float>)
KERNEL(group_moments_f16, THREADS, (group_moments<f16, WIDEST<f16>>), GroupMoments<f16>)
KERNEL(group_moments_bf16, THREADS, (group_moments<bf16, WIDEST<bf16>>), GroupMoments<bf16>)
KERNEL(group_moments_any_f32, THREADS, (group_moments<float, 1>), GroupMoments<float>)
KERNEL(group_moments_any_f16, THREADS, (group_moments<f16, 1>), GroupMoments<f16>)
KERNEL(group_moments_any_bf16, THREADS, (group_moments<bf16, 1>), GroupMoments<bf16>)
KERNEL(scale_shift_f32, THREADS, (scale_shift<float, WIDEST<float>>), ScaleShift<float>)
KERNEL(scale_shift_f16, THREADS, (scale_shift<f16, WIDEST<f16>>), ScaleShift<f16>)
KERNEL(scale_shift_bf16, THREADS, (scale_shift<bf16, WIDEST<bf16>>), ScaleShift<bf16>)
KERNEL(scale_shift_any_f32, THREADS, (scale_shift<float, 1>), ScaleShift<float>)
KERNEL(scale_shift_any_f16, THREADS, (scale_shift<f16, 1>), ScaleShift<f16>)
KERNEL(scale_shift_any_bf16, THREADS, (scale_shift<bf16, 1>), ScaleShift<bf16>)
