// Sums over the threads that share a row. All of them get the sum, in the same order whatever else runs.
#pragma once

#include "device.cuh"

constexpr unsigned MOST_WARPS = 32;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int bits = WARP / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

// Of a block. `partial` has room for `MOST_WARPS` values, and is used once between two barriers.
__device__ __forceinline__ float block_sum(float value, Shared<float> partial) {
    value = warp_sum(value);
    const unsigned warps = blockDim.x / WARP;
    if (warps == 1) return value;
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = value;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned warp = 0; warp < warps; ++warp) sum += partial[warp];
    return sum;
}
