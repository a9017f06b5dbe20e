// Sums of weighted tensors and of weighted differences of tensors, in one pass: what schedulers, guidance and the forecasts of
// caches are made of.
//
// A thread has one access of values that lie side by side: 16 bytes, or one value where operands do not allow that. In f32
// every operation is rounded by itself, so the results are those of one operator after the other, to the last bit.
#include "device.cuh"

namespace {

constexpr unsigned THREADS = 256;
// As in combination.rs.
constexpr unsigned MOST_TERMS = 6;

struct Term {
    Global<const unsigned char> values;
    Global<const unsigned char> subtracted;  // null: nothing
    float weight;
    unsigned unused;
};

template <class T>
struct Combination {
    Global<T> output;
    unsigned accesses;
    unsigned terms;
    Term term[MOST_TERMS];
};

template <class T, int N>
__device__ __forceinline__ void combine(const Combination<T>& p) {
    const unsigned access = blockIdx.x * THREADS + threadIdx.x;
    if (access >= p.accesses) return;
    const size_t place = size_t(access) * N;
    float sums[N] = {};
    for (unsigned index = 0; index < p.terms; ++index) {
        const Term& term = p.term[index];
        const Pack<T, N> x = load<N, T>(pointer_cast<const T>(term.values) + place);
        float values[N];
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = x[i];
        if (term.subtracted != nullptr) {
            const Pack<T, N> y = load<N, T>(pointer_cast<const T>(term.subtracted) + place);
#pragma unroll
            for (int i = 0; i < N; ++i) values[i] = __fsub_rn(values[i], y[i]);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float weighted = __fmul_rn(values[i], term.weight);
            sums[i] = index == 0 ? weighted : __fadd_rn(sums[i], weighted);
        }
    }
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.set(i, sums[i]);
    store<N, T>(p.output + place, result);
}

}  // namespace

KERNEL(combine_f32, THREADS, (combine<float, WIDEST<float>>), Combination<float>)
KERNEL(combine_f16, THREADS, (combine<f16, WIDEST<f16>>), Combination<f16>)
KERNEL(combine_bf16, THREADS, (combine<bf16, WIDEST<bf16>>), Combination<bf16>)
KERNEL(combine_any_f32, THREADS, (combine<float, 1>), Combination<float>)
KERNEL(combine_any_f16, THREADS, (combine<f16, 1>), Combination<f16>)
KERNEL(combine_any_bf16, THREADS, (combine<bf16, 1>), Combination<bf16>)
