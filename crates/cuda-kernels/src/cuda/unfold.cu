// The neighbourhoods of a convolution of 3x3 pixels, so that the convolution is one product of matrices: row `9 c + tap` of
// the result has, for every pixel of some lines, the neighbour `tap` of it in channel `c`, and zero outside the picture. One more
// row is of ones and seven are of zeros, for the bias: a product then adds it, and the number of rows stays a multiple of
// eight, which tensor cores want.
//
// A doubled picture has every pixel four times; it is not made, but looked up in the picture itself.
//
// A thread has `N` pixels of one channel that lie side by side in a line, reads their neighbours value by value (from
// the first-level cache, but for the first time) and writes each tap as one access: `unfold` 16 bytes, `unfold_any` one value.
#include "device.cuh"

namespace {

constexpr unsigned THREADS = 128;
constexpr unsigned ONE_ROWS = 8;

template <class T>
struct Unfold {
    Global<const T> x;
    Global<T> output;
    unsigned channels;
    unsigned height;  // of the picture, in lines
    unsigned width;
    unsigned channel_stride;  // from one channel of the picture to the next
    unsigned doubling;        // 1 where the picture is doubled, else 0
    unsigned first;           // line of the result, doubled if the picture is
    unsigned lines;
};

template <class T, int N>
__device__ __forceinline__ void write_row(const Unfold<T>& unfold, size_t row, unsigned pixel, const Pack<T, N>& values) {
    const unsigned pixels = unfold.lines * (unfold.width << unfold.doubling);
    store<N, T>(unfold.output + (row * pixels + pixel), values);
}

template <class T, int N>
__device__ __forceinline__ void write_ones(const Unfold<T>& unfold, unsigned pixel) {
    for (unsigned row = 0; row < ONE_ROWS; ++row) {
        Pack<T, N> values;
#pragma unroll
        for (int i = 0; i < N; ++i) values.set(i, row == 0 ? 1.0f : 0.0f);
        write_row<T, N>(unfold, size_t(9) * unfold.channels + row, pixel, values);
    }
}

template <class T, int N>
__device__ __forceinline__ void unfold(const Unfold<T>& unfold) {
    const unsigned width = unfold.width << unfold.doubling, height = unfold.height << unfold.doubling;
    const unsigned pixel = (blockIdx.x * blockDim.x + threadIdx.x) * N, channel = blockIdx.y;
    if (pixel >= unfold.lines * width) return;
    if (channel == unfold.channels) return write_ones<T, N>(unfold, pixel);
    const unsigned line = unfold.first + pixel / width, column = pixel % width;
    const Global<const T> picture = unfold.x + size_t(channel) * unfold.channel_stride;
    for (unsigned down = 0; down < 3; ++down) {
        const unsigned y = line + down;  // one more than the line that is meant
        const bool is_inside = y >= 1 && y <= height;
        const Global<const T> values = picture + size_t(is_inside ? (y - 1) >> unfold.doubling : 0) * unfold.width;
        T seen[N + 2];
#pragma unroll
        for (int i = 0; i < N + 2; ++i) {
            const unsigned x = column + i;  // one more, too
            const bool is_there = is_inside && x >= 1 && x <= width;
            seen[i] = is_there ? values[(x - 1) >> unfold.doubling] : from_float<T>(0.0f);
        }
#pragma unroll
        for (unsigned across = 0; across < 3; ++across) {
            Pack<T, N> tap;
#pragma unroll
            for (int i = 0; i < N; ++i) tap.values[i] = seen[i + across];
            write_row<T, N>(unfold, size_t(9) * channel + 3 * down + across, pixel, tap);
        }
    }
}

template <class T>
__device__ __forceinline__ void unfold_wide(const Unfold<T>& parameters) {
    unfold<T, WIDEST<T>>(parameters);
}

template <class T>
__device__ __forceinline__ void unfold_any(const Unfold<T>& parameters) {
    unfold<T, 1>(parameters);
}

}  // namespace

KERNEL(unfold_f32, THREADS, unfold_wide, Unfold<float>)
KERNEL(unfold_f16, THREADS, unfold_wide, Unfold<f16>)
KERNEL(unfold_bf16, THREADS, unfold_wide, Unfold<bf16>)
KERNEL(unfold_any_f32, THREADS, unfold_any, Unfold<float>)
KERNEL(unfold_any_f16, THREADS, unfold_any, Unfold<f16>)
KERNEL(unfold_any_bf16, THREADS, unfold_any, Unfold<bf16>)
