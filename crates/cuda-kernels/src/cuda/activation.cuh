// Activations, in f32.
#pragma once

#include "device.cuh"

// As `Activation` in activation.rs numbers them.
enum Activation : unsigned { NO_ACTIVATION = 0, GELU = 1, GELU_TANH = 2, QUICK_GELU = 3, RELU = 4, SILU = 5 };

// `x * sigmoid(y)`; for large negative y the exponential is infinite and the product 0.
__device__ __forceinline__ float times_sigmoid(float x, float y) { return __fdiv_rn(x, 1.0f + __expf(-y)); }

__device__ __forceinline__ float activated(unsigned activation, float x) {
    switch (activation) {
        case GELU: return 0.5f * x * erfcf(-0.70710678f * x);
        // 0.5 x (1 + tanh(u)) is x * sigmoid(2u), with u = sqrt(2 / pi) * (x + 0.044715 x^3).
        case GELU_TANH: return times_sigmoid(x, x * (1.5957691f + 0.071354814f * x * x));
        case QUICK_GELU: return times_sigmoid(x, 1.702f * x);
        case RELU: return x < 0.0f ? 0.0f : x;  // what is not a number stays so
        case SILU: return times_sigmoid(x, x);
        default: return x;
    }
}
