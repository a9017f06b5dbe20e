// What nvcc gives a kernel, for g++: keywords, indices, barriers, shuffles, votes, atomics, narrow types and fast functions.
// `memory.h` has the pointers, `threads.h` the threads, `matrix.h` products of a warp and asynchronous copies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "memory.h"
#include "threads.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (emulation::current().index)
#define blockIdx (emulation::launch().block_index)
#define blockDim (emulation::launch().block)
#define gridDim (emulation::launch().grid)

// A kernel and the structure it takes. On a device `extern "C" __global__`.
#define KERNEL(name, threads, body, Parameters)                                                                       \
    extern "C" void name(const void* parameters, std::size_t bytes) {                                                \
        if (bytes != sizeof(Parameters)) emulation::fault(#name " takes %zu bytes, not %zu", sizeof(Parameters), bytes); \
        if (emulation::launch().threads_per_block() > (threads))                                                     \
            emulation::fault(#name " runs in blocks of up to %d threads", int(threads));                             \
        body(*static_cast<const Parameters*>(parameters));                                                           \
    }

#define SHARED_ARRAY(type, name, count)                                                                            \
    static const char name##_site = 0;                                                                             \
    const Shared<type> name(                                                                                       \
        reinterpret_cast<type*>(emulation::launch().static_shared(&name##_site, sizeof(type) * (count))))
#define DYNAMIC_SHARED(type, name) \
    const Shared<type> name(reinterpret_cast<type*>(emulation::launch().dynamic_shared()))

template <class T>
using Global = emulation::Pointer<T, emulation::GlobalSpace>;
template <class T>
using Shared = emulation::Pointer<T, emulation::SharedSpace>;

template <class U, class T, class Space>
emulation::Pointer<U, Space> pointer_cast(emulation::Pointer<T, Space> pointer) {
    return emulation::Pointer<U, Space>(reinterpret_cast<U*>(pointer.raw()));
}

template <class T, class Space>
std::uintptr_t address_of(emulation::Pointer<T, Space> pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer.raw());
}

// Vectors.

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Narrow numbers.

struct f16 { std::uint16_t bits; };
struct bf16 { std::uint16_t bits; };

namespace emulation {

template <class To, class From>
To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline float widen(bf16 value) { return bit_cast<float>(std::uint32_t(value.bits) << 16); }

inline bf16 narrow_to_bf16(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return {0x7fff};
    return {std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline float widen(f16 value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
    if (rest >= 0x7c00) return bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    // As if it were a number of f32 with the exponent of f16, which a product mends, subnormal numbers as well.
    const float magnitude = bit_cast<float>(rest << 13) * bit_cast<float>(std::uint32_t(254 - 15) << 23);
    return bit_cast<float>(sign | bit_cast<std::uint32_t>(magnitude));
}

inline f16 narrow_to_f16(float value) {
    const auto bits = bit_cast<std::uint32_t>(value);
    const auto sign = std::uint16_t(bits >> 16 & 0x8000);
    if (std::isnan(value)) return {0x7fff};
    const float magnitude = std::fabs(value);
    if (magnitude >= 65520.0f) return {std::uint16_t(sign | 0x7c00)};
    if (magnitude < 6.103515625e-5f) {
        // Subnormal: a multiple of 2^-24, rounded to even by the addition.
        const float shifted = magnitude + 0.5f;
        return {std::uint16_t(sign | (bit_cast<std::uint32_t>(shifted) - bit_cast<std::uint32_t>(0.5f)))};
    }
    const std::uint32_t rest = bits & 0x7fffffff;
    const std::uint32_t rounded = rest + 0xfff + (rest >> 13 & 1);
    return {std::uint16_t(sign | ((rounded >> 13) - ((127 - 15) << 10)))};
}

}  // namespace emulation

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(f16 value) { return emulation::widen(value); }
__device__ inline float to_float(bf16 value) { return emulation::widen(value); }

template <class T>
T from_float(float value);
template <>
inline float from_float<float>(float value) { return value; }
template <>
inline f16 from_float<f16>(float value) { return emulation::narrow_to_f16(value); }
template <>
inline bf16 from_float<bf16>(float value) { return emulation::narrow_to_bf16(value); }

// Barriers, shuffles and votes.

inline void __syncthreads() { emulation::launch().barrier(); }

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    const char nothing = 0;
    emulation::launch().exchange(emulation::Collective::Sync, mask, &nothing, 1);
    ++emulation::current().syncs;
}

namespace emulation {

template <class T>
T shuffled(unsigned mask, const T& value, unsigned from) {
    static_assert(sizeof(T) <= SLOT_BYTES);
    const auto slots = launch().exchange(Collective::Shuffle, mask, &value, sizeof value);
    T result;
    std::memcpy(&result, slots[from], sizeof result);
    return result;
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    const unsigned own = emulation::current().lane;
    return emulation::shuffled(mask, value, own / width * width + unsigned(from) % width);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const unsigned own = emulation::current().lane, from = own ^ unsigned(bits);
    return emulation::shuffled(mask, value, from / width <= own / width ? from : own);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const unsigned own = emulation::current().lane;
    return emulation::shuffled(mask, value, own % width + by < unsigned(width) ? own + by : own);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const unsigned own = emulation::current().lane;
    return emulation::shuffled(mask, value, own % width >= by ? own - by : own);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const unsigned char vote = predicate != 0;
    const auto slots = emulation::launch().exchange(emulation::Collective::Vote, mask, &vote, 1);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) votes |= unsigned(slots[lane][0]) << lane;
    return votes;
}

inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

// Atomics. Fibers are not interrupted.

namespace emulation {

template <class T, class Space, class Change>
T atomically(Pointer<T, Space> pointer, Change change) {
    check<Space>(pointer.raw(), sizeof(T), Access::Atomic);
    const T before = *pointer.raw();
    *pointer.raw() = change(before);
    return before;
}

}  // namespace emulation

template <class T, class Space>
T atomicAdd(emulation::Pointer<T, Space> pointer, T value) {
    return emulation::atomically(pointer, [=](T before) { return T(before + value); });
}

template <class T, class Space>
T atomicMax(emulation::Pointer<T, Space> pointer, T value) {
    return emulation::atomically(pointer, [=](T before) { return std::max(before, value); });
}

template <class T, class Space>
T atomicOr(emulation::Pointer<T, Space> pointer, T value) {
    return emulation::atomically(pointer, [=](T before) { return T(before | value); });
}

template <class T, class Space>
T atomicExch(emulation::Pointer<T, Space> pointer, T value) {
    return emulation::atomically(pointer, [=](T) { return value; });
}

inline void __threadfence() {}

// Functions.

using std::max;
using std::min;

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float __int_as_float(int bits) { return emulation::bit_cast<float>(bits); }
inline float __uint_as_float(unsigned bits) { return emulation::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return emulation::bit_cast<unsigned>(value); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }

#include "matrix.h"
