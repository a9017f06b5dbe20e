// Root mean square norm of vectors, `x / sqrt(mean of squares + eps) * weight`, and the turn of their pairs of values by a token's
// angles (rotary positions), in one read and one write. What is normed is rounded before it is weighted, and before it is
// turned, as transformers and diffusers do.
//
// `norm_and_turn` is for heads: as many lanes as a vector has accesses of 16 bytes (a power of two) have a vector, so a warp
// has several, and sums go between those lanes alone. `norm_and_turn_any` gives a vector of any length and place to a warp, value
// by value. `rms_norm` gives long rows to blocks and holds them in registers, as layer norms do; it turns nothing.
#include "sums.cuh"

namespace {

constexpr int HELD = 2;  // accesses of a lane to a head
constexpr int HELD_OF_ROW = 4;  // accesses of a thread to a long row
constexpr unsigned THREADS = 128;
constexpr unsigned ROW_THREADS = 256;

template <class T>
struct NormAndTurn {
    Global<const T> x;  // tokens `stride` apart, vectors of a token side by side
    Global<const T> weight;  // null: no norm
    Global<const float> cosines;  // null: no turn; [angles, size / 2]
    Global<const float> sines;
    Global<T> output;  // [tokens, vectors, size], but for what lies between rows
    unsigned total;  // vectors of all tokens
    unsigned vectors;  // of a token
    unsigned size;
    unsigned stride;
    unsigned angles;  // tokens that have angles of their own; more begin again
    unsigned halves;  // pairs are of a value of the first half and one of the second, not neighbours
    unsigned lanes;  // of a vector
    unsigned row;  // vectors of a row
    unsigned between;  // vectors of others between two rows of the output
    float eps;
};

// Where a vector begins.
template <class T>
__device__ __forceinline__ Global<const T> vector_at(const NormAndTurn<T>& p, unsigned vector) {
    const unsigned token = vector / p.vectors;
    return p.x + (size_t(token) * p.stride + size_t(vector - token * p.vectors) * p.size);
}

// Where it goes.
template <class T>
__device__ __forceinline__ Global<T> place_of(const NormAndTurn<T>& p, unsigned vector) {
    return p.output + (size_t(vector) + size_t(vector / p.row) * p.between) * p.size;
}

// Sums between neighbouring lanes, a power of two.
__device__ __forceinline__ float sum_of_lanes(float value, unsigned lanes) {
    for (unsigned bits = lanes / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

template <class T>
__device__ __forceinline__ float factor_of(const NormAndTurn<T>& p, float squares) {
    return p.weight != nullptr ? rsqrtf(squares / float(p.size) + p.eps) : 1.0f;
}

// Values of a vector from `first` on as they are before they are turned: normed and weighted.
template <class T, int N>
__device__ __forceinline__ void weighted(const NormAndTurn<T>& p, const Pack<T, N>& x, float factor, unsigned first,
                                         float (&values)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = x[i];
    if (p.weight == nullptr) return;
    const Pack<T, N> weight = load<N, T>(p.weight + first);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = rounded<T>(rounded<T>(values[i] * factor) * weight[i]);
}

// Turns values by neighbours' angles; N / 2 pairs.
template <class T, int N>
__device__ __forceinline__ void turn_neighbours(const NormAndTurn<T>& p, size_t angles, unsigned first, float (&values)[N]) {
    const Pack<float, N / 2> cosines = load<N / 2, float>(p.cosines + (angles + first / 2));
    const Pack<float, N / 2> sines = load<N / 2, float>(p.sines + (angles + first / 2));
#pragma unroll
    for (int pair = 0; pair < N / 2; ++pair) {
        const float early = values[2 * pair], late = values[2 * pair + 1];
        values[2 * pair] = early * cosines[pair] - late * sines[pair];
        values[2 * pair + 1] = late * cosines[pair] + early * sines[pair];
    }
}

// Turns values by those of the other half. N of them lie in one half.
template <class T, int N>
__device__ __forceinline__ void turn_halves(const NormAndTurn<T>& p, Global<const T> x, float factor, size_t angles,
                                            unsigned first, float (&values)[N]) {
    const unsigned half = p.size / 2;
    const bool is_early = first < half;
    const unsigned partner = is_early ? first + half : first - half, pair = is_early ? first : partner;
    float others[N];
    weighted<T, N>(p, load<N, T>(x + partner), factor, partner, others);
#pragma unroll
    for (int start = 0; start < N; start += 4) {
        const Pack<float, 4> cosines = load<4, float>(p.cosines + (angles + pair + start));
        const Pack<float, 4> sines = load<4, float>(p.sines + (angles + pair + start));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float sine = is_early ? -sines[i] : sines[i];
            values[start + i] = values[start + i] * cosines[i] + others[start + i] * sine;
        }
    }
}

template <class T>
__device__ __forceinline__ void norm_and_turn(const NormAndTurn<T>& p) {
    constexpr int N = WIDEST<T>;
    const unsigned thread = blockIdx.x * THREADS + threadIdx.x;
    const unsigned vector = thread / p.lanes, lane = thread % p.lanes;
    // Lanes without a vector help to sum nothing.
    const bool is_there = vector < p.total;
    const Global<const T> x = vector_at(p, is_there ? vector : 0);
    Pack<T, N> held[HELD];
    float squares = 0.0f;
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        const unsigned first = (lane + index * p.lanes) * N;
        if (!is_there || first >= p.size) continue;
        held[index] = load<N, T>(x + first);
#pragma unroll
        for (int i = 0; i < N; ++i) squares += held[index][i] * held[index][i];
    }
    const float factor = factor_of(p, sum_of_lanes(squares, p.lanes));
    const size_t angles = size_t(vector / p.vectors % p.angles) * (p.size / 2);
#pragma unroll
    for (int index = 0; index < HELD; ++index) {
        const unsigned first = (lane + index * p.lanes) * N;
        if (!is_there || first >= p.size) continue;
        float values[N];
        weighted<T, N>(p, held[index], factor, first, values);
        if (p.cosines != nullptr && !p.halves) turn_neighbours<T, N>(p, angles, first, values);
        if (p.cosines != nullptr && p.halves) turn_halves<T, N>(p, x, factor, angles, first, values);
        Pack<T, N> result;
#pragma unroll
        for (int i = 0; i < N; ++i) result.set(i, values[i]);
        store<N, T>(place_of(p, vector) + first, result);
    }
}

template <class T>
__device__ __forceinline__ void norm_and_turn_any(const NormAndTurn<T>& p) {
    const unsigned vector = (blockIdx.x * THREADS + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    if (vector >= p.total) return;  // a whole warp
    const Global<const T> x = vector_at(p, vector);
    float squares = 0.0f;
    for (unsigned i = lane; i < p.size; i += WARP) squares += to_float(x[i]) * to_float(x[i]);
    const float factor = factor_of(p, warp_sum(squares));
    const unsigned half = p.size / 2;
    const size_t angles = size_t(vector / p.vectors % p.angles) * half;
    for (unsigned i = lane; i < p.size; i += WARP) {
        float values[1];
        weighted<T, 1>(p, load<1, T>(x + i), factor, i, values);
        if (p.cosines != nullptr) {
            const bool is_early = p.halves ? i < half : i % 2 == 0;
            const unsigned apart = p.halves ? half : 1, partner = is_early ? i + apart : i - apart;
            const unsigned pair = p.halves ? i % half : i / 2;
            float other[1];
            weighted<T, 1>(p, load<1, T>(x + partner), factor, partner, other);
            const float cosine = p.cosines[angles + pair], sine = p.sines[angles + pair];
            values[0] = values[0] * cosine + other[0] * (is_early ? -sine : sine);
        }
        place_of(p, vector)[i] = from_float<T>(values[0]);
    }
}

template <class T>
__device__ __forceinline__ void rms_norm(const NormAndTurn<T>& p) {
    constexpr int N = WIDEST<T>;
    SHARED_ARRAY(float, partial, MOST_WARPS);
    const unsigned vector = blockIdx.x;
    const Global<const T> x = vector_at(p, vector);
    Pack<T, N> held[HELD_OF_ROW];
#pragma unroll
    for (int index = 0; index < HELD_OF_ROW; ++index) {
        const unsigned first = (threadIdx.x + index * blockDim.x) * N;
        if (first < p.size) held[index] = load<N, T>(x + first);
    }
    float squares = 0.0f;
#pragma unroll
    for (int index = 0; index < HELD_OF_ROW; ++index) {
        if ((threadIdx.x + index * blockDim.x) * N >= p.size) continue;
#pragma unroll
        for (int i = 0; i < N; ++i) squares += held[index][i] * held[index][i];
    }
    const float factor = factor_of(p, block_sum(squares, partial));
#pragma unroll
    for (int index = 0; index < HELD_OF_ROW; ++index) {
        const unsigned first = (threadIdx.x + index * blockDim.x) * N;
        if (first >= p.size) continue;
        float values[N];
        weighted<T, N>(p, held[index], factor, first, values);
        Pack<T, N> result;
#pragma unroll
        for (int i = 0; i < N; ++i) result.set(i, values[i]);
        store<N, T>(place_of(p, vector) + first, result);
    }
}

}  // namespace

KERNEL(norm_and_turn_f32, THREADS, norm_and_turn, NormAndTurn<float>)
KERNEL(norm_and_turn_f16, THREADS, norm_and_turn, NormAndTurn<f16>)
KERNEL(norm_and_turn_bf16, THREADS, norm_and_turn, NormAndTurn<bf16>)
KERNEL(norm_and_turn_any_f32, THREADS, norm_and_turn_any, NormAndTurn<float>)
KERNEL(norm_and_turn_any_f16, THREADS, norm_and_turn_any, NormAndTurn<f16>)
KERNEL(norm_and_turn_any_bf16, THREADS, norm_and_turn_any, NormAndTurn<bf16>)
KERNEL(rms_norm_f32, ROW_THREADS, rms_norm, NormAndTurn<float>)
KERNEL(rms_norm_f16, ROW_THREADS, rms_norm, NormAndTurn<f16>)
KERNEL(rms_norm_bf16, ROW_THREADS, rms_norm, NormAndTurn<bf16>)
