// What follows a matrix product, in one pass over it: bias, activation, factor and residual, in f32, rounded once.
//
// A thread has one access of values that lie side by side: 16 bytes, or one value where rows or operands do not allow that. Bias
// and factors, which rows share, come from the caches. Nothing is kept: in place if the output is x.
#include "activation.cuh"

namespace {

constexpr unsigned THREADS = 256;

template <class T>
struct Epilogue {
    Global<const T> x;  // rows `x_stride` apart
    Global<const T> bias;  // null: none
    Global<const T> gate;  // null: none; its rows are factors of `tokens` rows of x each
    Global<const T> residual;  // null: none; [rows, outputs]
    Global<T> output;  // [rows, outputs]
    unsigned accesses;  // of all rows
    unsigned outputs;
    unsigned x_stride;
    unsigned gate_stride;
    unsigned tokens;
    unsigned activation;
    unsigned activates_gate;  // the factors rather than x
};

template <class T, int N>
__device__ __forceinline__ void epilogue(const Epilogue<T>& p) {
    const unsigned access = blockIdx.x * THREADS + threadIdx.x;
    if (access >= p.accesses) return;
    const unsigned accesses_of_row = p.outputs / N;
    const unsigned row = access / accesses_of_row, column = (access - row * accesses_of_row) * N;
    const size_t place = size_t(row) * p.outputs + column;
    const Pack<T, N> x = load<N, T>(p.x + (size_t(row) * p.x_stride + column));
    float values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = x[i];
    if (p.bias != nullptr) {
        const Pack<T, N> bias = load<N, T>(p.bias + column);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] += bias[i];
    }
    if (!p.activates_gate) {
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = activated(p.activation, values[i]);
    }
    if (p.gate != nullptr) {
        const Pack<T, N> gate = load<N, T>(p.gate + (size_t(row / p.tokens) * p.gate_stride + column));
        const unsigned activation = p.activates_gate ? p.activation : NO_ACTIVATION;
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] *= activated(activation, gate[i]);
    }
    if (p.residual != nullptr) {
        const Pack<T, N> residual = load<N, T>(p.residual + place);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] += residual[i];
    }
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.set(i, values[i]);
    store<N, T>(p.output + place, result);
}

}  // namespace

KERNEL(epilogue_f32, THREADS, (epilogue<float, WIDEST<float>>), Epilogue<float>)
KERNEL(epilogue_f16, THREADS, (epilogue<f16, WIDEST<f16>>), Epilogue<f16>)
KERNEL(epilogue_bf16, THREADS, (epilogue<bf16, WIDEST<bf16>>), Epilogue<bf16>)
KERNEL(epilogue_any_f32, THREADS, (epilogue<float, 1>), Epilogue<float>)
KERNEL(epilogue_any_f16, THREADS, (epilogue<f16, 1>), Epilogue<f16>)
KERNEL(epilogue_any_bf16, THREADS, (epilogue<bf16, 1>), Epilogue<bf16>)
