// Sums of magnitudes of many tensors in one launch: of values, which are finite only if all of them are, and of differences, which
// the decisions of caches are made of.
//
// A part of a tensor, of a length that depends on nothing but the tensor's, is a block's, and leaves one sum. The host adds up
// the parts, so there is no second launch, and the sums are the same whatever else is in the launch. Differences are rounded
// to the type of the values, as PyTorch rounds them.
#include "sums.cuh"

namespace {

constexpr unsigned THREADS = 256;
// As in reduction.rs: what fits into the parameters of a launch.
constexpr unsigned MOST_TENSORS = 64;

struct Tensor {
    Global<const unsigned char> values;
    Global<const unsigned char> subtracted;  // null: nothing
    unsigned count;
    unsigned part;  // values of a block
    unsigned first_block;
    unsigned is_wide;  // accesses of 16 bytes are possible
};

struct Reduction {
    Global<float> sums;  // a block each
    unsigned tensors;
    unsigned unused;
    Tensor tensor[MOST_TENSORS];
};

template <class T, int N>
__device__ __forceinline__ float magnitudes(const Tensor& tensor, unsigned start, unsigned end) {
    const Global<const T> values = pointer_cast<const T>(tensor.values);
    const Global<const T> subtracted = pointer_cast<const T>(tensor.subtracted);
    float sum = 0.0f;
    for (unsigned i = start + threadIdx.x * N; i < end; i += THREADS * N) {
        const Pack<T, N> x = load<N, T>(values + i);
        if (subtracted != nullptr) {
            const Pack<T, N> y = load<N, T>(subtracted + i);
#pragma unroll
            for (int k = 0; k < N; ++k) sum += fabsf(rounded<T>(x[k] - y[k]));
        } else {
#pragma unroll
            for (int k = 0; k < N; ++k) sum += fabsf(x[k]);
        }
    }
    return sum;
}

template <class T>
__device__ __forceinline__ void reduce(const Reduction& p) {
    SHARED_ARRAY(float, partial, MOST_WARPS);
    unsigned index = 0;
    while (index + 1 < p.tensors && p.tensor[index + 1].first_block <= blockIdx.x) ++index;
    const Tensor& tensor = p.tensor[index];
    const unsigned start = (blockIdx.x - tensor.first_block) * tensor.part;
    const unsigned end = min(start + tensor.part, tensor.count);
    float sum = 0.0f;
    if (tensor.is_wide) {
        // A part is a multiple of an access, and so is all that comes before the last values of a tensor.
        const unsigned whole = end - end % WIDEST<T>;
        sum = magnitudes<T, WIDEST<T>>(tensor, start, whole) + magnitudes<T, 1>(tensor, whole, end);
    } else {
        sum = magnitudes<T, 1>(tensor, start, end);
    }
    sum = block_sum(sum, partial);
    if (threadIdx.x == 0) p.sums[blockIdx.x] = sum;
}

}  // namespace

KERNEL(reduce_f32, THREADS, reduce<float>, Reduction)
KERNEL(reduce_f16, THREADS, reduce<f16>, Reduction)
KERNEL(reduce_bf16, THREADS, reduce<bf16>, Reduction)
