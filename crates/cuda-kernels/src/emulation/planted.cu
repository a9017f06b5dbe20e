// Kernels with faults that the emulation has to find, each beside one without; and what shows that its operations are those of a
// device. Only tests launch them.
#include "device.cuh"

namespace {

struct Planted {
    Global<const float> x;
    Global<float> output;
    unsigned count;
    unsigned is_faulty;
};

__device__ void unwritten_shared(const Planted& p) {
    SHARED_ARRAY(float, values, 64);
    if (!p.is_faulty || threadIdx.x != 7) values[threadIdx.x] = p.x[threadIdx.x];
    __syncthreads();
    p.output[threadIdx.x] = values[63 - threadIdx.x];
}

__device__ void missing_barrier(const Planted& p) {
    SHARED_ARRAY(float, values, 64);
    values[threadIdx.x] = 0.0f;
    __syncthreads();
    values[threadIdx.x] = p.x[threadIdx.x];
    if (!p.is_faulty) __syncthreads();
    if (threadIdx.x < 32) p.output[threadIdx.x] = values[threadIdx.x + 1 - threadIdx.x % 2 * 2];
    __syncthreads();
    if (threadIdx.x >= 32) p.output[threadIdx.x] = values[threadIdx.x];
}

// Read, and then overwritten for the next round while others may still read.
__device__ void early_overwrite(const Planted& p) {
    SHARED_ARRAY(float, values, 64);
    float sum = 0.0f;
    for (unsigned round = 0; round < 2; ++round) {
        values[threadIdx.x] = p.x[threadIdx.x] + float(round);
        __syncthreads();
        sum += values[(threadIdx.x + 32) % 64];
        if (!p.is_faulty) __syncthreads();
    }
    p.output[threadIdx.x] = sum;
}

// Lanes of one warp need less than a barrier, but not nothing: a shuffle orders no memory.
__device__ void shuffle_is_no_barrier(const Planted& p) {
    SHARED_ARRAY(float, values, 64);
    values[threadIdx.x] = p.x[threadIdx.x];
    if (p.is_faulty) {
        __shfl_xor_sync(ALL_LANES, 1, 1);
    } else {
        __syncwarp();
    }
    p.output[threadIdx.x] = values[threadIdx.x ^ 1];
}

__device__ void blocks_race(const Planted& p) {
    p.output[threadIdx.x + (p.is_faulty ? 0 : blockIdx.x * blockDim.x)] = p.x[threadIdx.x];
}

__device__ void out_of_bounds(const Planted& p) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    p.output[index] = p.x[index + (index == p.count - 1 ? p.is_faulty : 0)];
}

__device__ void shared_out_of_bounds(const Planted& p) {
    SHARED_ARRAY(float, values, 64);
    values[threadIdx.x + p.is_faulty] = p.x[threadIdx.x];
    p.output[threadIdx.x] = values[threadIdx.x + p.is_faulty];
}

__device__ void misaligned(const Planted& p) {
    if (threadIdx.x < p.count / 4 - 1) {
        store<4, float>(p.output + 4 * threadIdx.x, load<4, float>(p.x + (4 * threadIdx.x + p.is_faulty)));
    } else if (4 * threadIdx.x < p.count) {
        store<4, float>(p.output + 4 * threadIdx.x, load<4, float>(p.x + 4 * threadIdx.x));
    }
}

__device__ void diverged_barrier(const Planted& p) {
    if (!p.is_faulty || threadIdx.x < 48) __syncthreads();
    p.output[threadIdx.x] = p.x[threadIdx.x];
}

__device__ void unfinished_copy(const Planted& p) {
    SHARED_ARRAY(float4, values, 64);
    const Global<const float4> x = pointer_cast<const float4>(p.x);
    copy_async_16(values + threadIdx.x, x + threadIdx.x % 16, threadIdx.x < 16);
    commit_copies();
    if (p.is_faulty) {
        wait_for_copies<1>();
    } else {
        wait_for_copies<0>();
    }
    const float4 value = values[threadIdx.x];
    p.output[threadIdx.x] = value.x;
    wait_for_copies<0>();
}

__device__ void unwritten_output(const Planted& p) {
    if (!p.is_faulty || threadIdx.x != 5) p.output[threadIdx.x] = p.x[threadIdx.x];
}

}  // namespace

#define PLANTED(name) KERNEL(planted_##name, 64, name, Planted)
PLANTED(unwritten_shared)
PLANTED(missing_barrier)
PLANTED(early_overwrite)
PLANTED(shuffle_is_no_barrier)
PLANTED(blocks_race)
PLANTED(out_of_bounds)
PLANTED(shared_out_of_bounds)
PLANTED(misaligned)
PLANTED(diverged_barrier)
PLANTED(unfinished_copy)
PLANTED(unwritten_output)

namespace {

struct Conversion {
    Global<const float> wide;
    Global<const f16> halves;
    Global<f16> to_half;
    Global<bf16> to_bf16;
    Global<float> from_half;
    unsigned count;
    unsigned halves_count;
};

__device__ void convert(const Conversion& p) {
    const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < p.count) {
        p.to_half[index] = from_float<f16>(p.wide[index]);
        p.to_bf16[index] = from_float<bf16>(p.wide[index]);
    }
    if (index < p.halves_count) p.from_half[index] = to_float(p.halves[index]);
}

// [16, 16] times [16, 8], with operands from shared memory by `load_matrices`, and lanes' votes and shuffles.
struct WarpOperations {
    Global<const bf16> a;
    Global<const bf16> b;  // [16, 8], so that its loads are transposed
    Global<float> product;
    Global<unsigned> results;  // [32, 6]
};

__device__ void warp_operations(const WarpOperations& p) {
    SHARED_ARRAY(uint4, a, 32);
    SHARED_ARRAY(uint4, b, 16);
    const unsigned lane = threadIdx.x;
    a[lane] = pointer_cast<const uint4>(p.a)[lane];
    if (lane < 16) b[lane] = pointer_cast<const uint4>(p.b)[lane];
    __syncwarp();
    uint32_t left[4], right[2];
    // Matrices are rows 0-7, rows 8-15, and the same with columns 8-15; a row is two of 16 bytes.
    load_matrices(left, pointer_cast<bf16>(a + (lane % 16 * 2 + lane / 16)));
    load_matrices_transposed(right, pointer_cast<bf16>(b + lane % 16));
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    multiply_add<bf16>(sums, left, right);
    for (unsigned i = 0; i < 4; ++i) p.product[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];

    const Global<unsigned> results = p.results + lane * 6;
    results[0] = __ballot_sync(ALL_LANES, lane % 3 == 0);
    results[1] = __shfl_sync(ALL_LANES, lane, 5);
    results[2] = __shfl_xor_sync(ALL_LANES, lane, 3);
    results[3] = __shfl_down_sync(ALL_LANES, lane, 4);
    results[4] = __shfl_up_sync(ALL_LANES, lane, 2, 8);
    results[5] = unsigned(__any_sync(ALL_LANES, lane == 31)) + 2 * unsigned(__all_sync(ALL_LANES, lane < 31));
}

// How many threads of the grid there are, by atomics on shared and global memory.
struct Counting {
    Global<unsigned> count;
};

__device__ void count_threads(const Counting& p) {
    SHARED_ARRAY(unsigned, count, 1);
    if (threadIdx.x == 0) count[0] = 0u;
    __syncthreads();
    atomicAdd(count + 0, 1u);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(p.count, unsigned(count[0]));
}

}  // namespace

KERNEL(planted_convert, 64, convert, Conversion)
KERNEL(planted_warp_operations, 32, warp_operations, WarpOperations)
KERNEL(planted_count_threads, 64, count_threads, Counting)
