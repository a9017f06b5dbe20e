// What kernels of attention are told: operands, lengths, strides, and what becomes of scores. Strides count values.
// `attention/parameters.rs` has the same structures.
#pragma once

#include "device.cuh"

// From one row, token and head to the next; the values of a head lie side by side.
struct HeadStrides {
    int64_t row;
    int32_t token;
    int32_t head;
};

// Of the bias [rows, heads, queries, keys], 0 where it is the same; those of a query's keys lie side by side.
struct BiasStrides {
    int64_t row;
    int64_t head;
    int64_t query;
};

struct AttentionShape {
    HeadStrides query;
    HeadStrides key;
    HeadStrides value;
    BiasStrides bias;
    int32_t heads;
    int32_t queries;
    int32_t keys;
    int32_t head_size;
    // What scores are multiplied by, above 0.
    float scale;
    // Scores become cap * tanh(score / cap) before the bias is added; 0 is no cap.
    float soft_cap;
    // Whether all vectors begin at a multiple of 16 bytes, so that they can be copied in pieces of that size.
    int32_t is_aligned;
    // The same of the output.
    int32_t is_output_aligned;
};

template <class T>
struct AttentionParameters {
    Global<const T> query;
    Global<const T> key;
    Global<const T> value;
    // May be null.
    Global<const float> bias;
    // [rows, queries, heads * head size]
    Global<T> output;
    AttentionShape shape;
};

constexpr float LOG2_E = 1.4426950408889634f;
// Where the search for the largest score begins. Not infinite, so that differences are no NaN.
constexpr float LOWEST = -3.4028234e38f;
// Scores with a bias are no lower than this. It is as good as minus infinity beside any other score, and near enough that
// what is left of it after scaling has its digits: a query whose keys are all hidden weighs them all alike, as it does
// on the CPU, and comes to no NaN.
constexpr float HIDDEN = -65536.0f;

// cap * tanh(score / cap), as tanh(x) = 1 - 2 / (1 + e^(2 x)).
__device__ __forceinline__ float capped(float score, float cap, float inverse_cap) {
    const float power = fast_exp2(score * inverse_cap * (2.0f * LOG2_E));
    return cap - __fdividef(2.0f * cap, 1.0f + power);
}

// The head's first value of its first token.
template <class T>
__device__ __forceinline__ Global<const T> head_of(Global<const T> vectors, HeadStrides strides, int row, int head) {
    return vectors + (row * strides.row + int64_t(head) * strides.head);
}
