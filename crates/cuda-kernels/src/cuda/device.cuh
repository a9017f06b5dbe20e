// What all kernels are written with: the same names for nvcc and for the emulation, in which pointers are checked.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#define KERNEL(name, threads, body, Parameters)                                                                      \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Parameters parameters) {      \
        body(parameters);                                                                                            \
    }
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)                             \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    const Shared<type> name = reinterpret_cast<type*>(dynamic_shared)

template <class T>
using Global = T*;
template <class T>
using Shared = T*;

template <class U, class T>
__device__ __forceinline__ U* pointer_cast(T* pointer) {
    return reinterpret_cast<U*>(pointer);
}
template <class T>
__device__ __forceinline__ uintptr_t address_of(T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
}

using f16 = __half;
using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(f16 value) { return __half2float(value); }
__device__ __forceinline__ float to_float(bf16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) { return value; }
template <>
__device__ __forceinline__ f16 from_float<f16>(float value) { return __float2half_rn(value); }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) { return __float2bfloat16_rn(value); }

__device__ __forceinline__ float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#include "matrix.cuh"

#else

#include "emulation.h"

#endif

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// What a value becomes in memory.
template <class T>
__device__ __forceinline__ float rounded(float value) {
    return to_float(from_float<T>(value));
}

// Values that lie side by side and are read and written together: 16 bytes where the kernel's operands allow it.
template <class T, int COUNT>
struct alignas(sizeof(T) * COUNT) Pack {
    T values[COUNT];

    __device__ __forceinline__ float operator[](int index) const { return to_float(values[index]); }
    __device__ __forceinline__ void set(int index, float value) { values[index] = from_float<T>(value); }
};

// The most values that one access can have.
template <class T>
constexpr int WIDEST = 16 / sizeof(T);

template <int COUNT, class T>
__device__ __forceinline__ Pack<T, COUNT> load(Global<const T> pointer) {
    if constexpr (sizeof(T) * COUNT == 16) {
        const uint4 bits = *pointer_cast<const uint4>(pointer);
        Pack<T, COUNT> pack;
        memcpy(&pack, &bits, sizeof pack);
        return pack;
    } else {
        return *pointer_cast<const Pack<T, COUNT>>(pointer);
    }
}

template <int COUNT, class T>
__device__ __forceinline__ void store(Global<T> pointer, const Pack<T, COUNT>& pack) {
    if constexpr (sizeof(T) * COUNT == 16) {
        uint4 bits;
        memcpy(&bits, &pack, sizeof bits);
        *pointer_cast<uint4>(pointer) = bits;
    } else {
        *pointer_cast<Pack<T, COUNT>>(pointer) = pack;
    }
}
