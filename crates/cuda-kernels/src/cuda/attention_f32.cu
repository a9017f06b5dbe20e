// Attention in f32, with multiplications and additions in f32: tensor cores would round operands to 10 bits.
//
// A block of 256 threads answers 64 queries of one head, in all or, where a head is large, VALUES of its values; it takes
// 64 keys at a time. Threads are 16 x 16: `line` has 4 queries, and `column` every 16th key and then every 16th value.
// The online softmax of a query is a matter of the 16 lanes of its line. Queries and keys pass through shared memory in
// pieces of 32 values, so heads may have any size; weights go through it to become an operand again.

#include "attention_shape.cuh"

constexpr int SIDE = 16;
constexpr int LINES = 4;
constexpr int TILE = SIDE * LINES;
constexpr int DEPTH = 32;
// Rows of shared memory: whole float4s, in which the 8 rows that are read at a time lie in different banks.
constexpr int DEPTH_PITCH = DEPTH + 4;
constexpr int WEIGHT_PITCH = TILE + 4;
constexpr int WIDE_THREADS = SIDE * SIDE;

// Fills [TILE, COLUMNS] of shared memory from vectors, with zeros past `count` vectors or `size` values.
template <int COLUMNS, int PITCH>
__device__ __forceinline__ void fill_tile(Shared<float> to, Global<const float> from, int stride, int count, int size) {
    for (int index = int(threadIdx.x); index < TILE * COLUMNS; index += WIDE_THREADS) {
        const int line = index / COLUMNS;
        const int column = index % COLUMNS;
        const bool is_there = line < count && column < size;
        to[line * PITCH + column] = is_there ? float(from[int64_t(line) * stride + column]) : 0.0f;
    }
}

// scores += queries * keys of one piece of the head.
__device__ __forceinline__ void multiply_piece(float (&scores)[LINES][LINES], Shared<float> queries,
                                               Shared<float> keys, int line, int column) {
#pragma unroll
    for (int depth = 0; depth < DEPTH; depth += 4) {
        float4 query[LINES], key[LINES];
#pragma unroll
        for (int index = 0; index < LINES; ++index) {
            query[index] = *pointer_cast<float4>(queries + ((line * LINES + index) * DEPTH_PITCH + depth));
            key[index] = *pointer_cast<float4>(keys + ((column + index * SIDE) * DEPTH_PITCH + depth));
        }
#pragma unroll
        for (int row = 0; row < LINES; ++row) {
#pragma unroll
            for (int index = 0; index < LINES; ++index) {
                float sum = scores[row][index];
                sum = fmaf(query[row].x, key[index].x, sum);
                sum = fmaf(query[row].y, key[index].y, sum);
                sum = fmaf(query[row].z, key[index].z, sum);
                scores[row][index] = fmaf(query[row].w, key[index].w, sum);
            }
        }
    }
}

// Scales, caps and hides scores of keys from `first_key` on, the lane's first.
__device__ __forceinline__ void finish_scores(float (&scores)[LINES][LINES], const AttentionShape& shape,
                                              Global<const float> bias, int first_query, int first_key) {
    const float inverse_cap = shape.soft_cap > 0.0f ? 1.0f / shape.soft_cap : 0.0f;
#pragma unroll
    for (int row = 0; row < LINES; ++row) {
        const int query = min(first_query + row, shape.queries - 1);
#pragma unroll
        for (int index = 0; index < LINES; ++index) {
            const int key = first_key + index * SIDE;
            float score = scores[row][index] * shape.scale;
            if (shape.soft_cap > 0.0f) score = capped(score, shape.soft_cap, inverse_cap);
            if (bias != nullptr && key < shape.keys) {
                score += bias[query * shape.bias.query + key];
                score = fmaxf(score, HIDDEN);
            }
            scores[row][index] = key < shape.keys ? score : -INFINITY;
        }
    }
}

__device__ __forceinline__ float largest_of_line(float value) {
#pragma unroll
    for (int distance = SIDE / 2; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

__device__ __forceinline__ float sum_of_line(float value) {
#pragma unroll
    for (int distance = SIDE / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

// What a thread has of its queries' results so far.
template <int VALUES>
struct LineState {
    float largest[LINES];
    float total[LINES];
    float sums[LINES][VALUES / SIDE];
};

// Turns scores into weights, writes them to shared memory, and brings what is summed to the new largest scores.
template <int VALUES>
__device__ __forceinline__ void soften(float (&scores)[LINES][LINES], LineState<VALUES>& state, Shared<float> weights,
                                       int line, int column) {
#pragma unroll
    for (int row = 0; row < LINES; ++row) {
        float most = state.largest[row];
#pragma unroll
        for (int index = 0; index < LINES; ++index) most = fmaxf(most, scores[row][index]);
        most = largest_of_line(most);
        const float factor = fast_exp2((state.largest[row] - most) * LOG2_E);
        state.largest[row] = most;
        state.total[row] *= factor;
#pragma unroll
        for (int value = 0; value < VALUES / SIDE; ++value) state.sums[row][value] *= factor;
#pragma unroll
        for (int index = 0; index < LINES; ++index) {
            const float weight = fast_exp2((scores[row][index] - most) * LOG2_E);
            state.total[row] += weight;
            weights[(line * LINES + row) * WEIGHT_PITCH + column + index * SIDE] = weight;
        }
    }
}

template <int VALUES>
__device__ __forceinline__ void multiply_values(LineState<VALUES>& state, Shared<float> weights, Shared<float> values,
                                                int line, int column) {
#pragma unroll 1
    for (int key = 0; key < TILE; key += 4) {
        float4 weight[LINES];
#pragma unroll
        for (int row = 0; row < LINES; ++row) {
            weight[row] = *pointer_cast<float4>(weights + ((line * LINES + row) * WEIGHT_PITCH + key));
        }
#pragma unroll
        for (int value = 0; value < VALUES / SIDE; ++value) {
            const Shared<float> place = values + (key * VALUES + column + value * SIDE);
            const float first = place[0], second = place[VALUES], third = place[2 * VALUES], fourth = place[3 * VALUES];
#pragma unroll
            for (int row = 0; row < LINES; ++row) {
                float sum = state.sums[row][value];
                sum = fmaf(weight[row].x, first, sum);
                sum = fmaf(weight[row].y, second, sum);
                sum = fmaf(weight[row].z, third, sum);
                state.sums[row][value] = fmaf(weight[row].w, fourth, sum);
            }
        }
    }
}

template <int VALUES>
__device__ __forceinline__ void attend(const AttentionParameters<float>& of) {
    DYNAMIC_SHARED(float, queries);
    const Shared<float> keys = queries + TILE * DEPTH_PITCH;
    const Shared<float> weights = keys + TILE * DEPTH_PITCH;
    const Shared<float> values = weights + TILE * WEIGHT_PITCH;
    const AttentionShape& shape = of.shape;
    const int query_blocks = (shape.queries + TILE - 1) / TILE;
    const int row = int(blockIdx.z), head = int(blockIdx.y);
    const int block_query = int(blockIdx.x) % query_blocks * TILE;
    const int first_value = int(blockIdx.x) / query_blocks * VALUES;
    const int line = int(threadIdx.x) / SIDE, column = int(threadIdx.x) % SIDE;
    const int first_query = block_query + line * LINES;

    const Global<const float> query =
        head_of(of.query, shape.query, row, head) + int64_t(block_query) * shape.query.token;
    const Global<const float> key = head_of(of.key, shape.key, row, head);
    const Global<const float> value = head_of(of.value, shape.value, row, head) + first_value;
    Global<const float> bias = of.bias;
    if (bias != nullptr) bias += row * shape.bias.row + head * shape.bias.head;

    LineState<VALUES> state = {};
#pragma unroll
    for (float& largest : state.largest) largest = LOWEST;
    for (int first_key = 0; first_key < shape.keys; first_key += TILE) {
        const int count = shape.keys - first_key;
        float scores[LINES][LINES] = {};
        for (int depth = 0; depth < shape.head_size; depth += DEPTH) {
            // Nobody reads the last piece any more, nor the last values.
            __syncthreads();
            fill_tile<DEPTH, DEPTH_PITCH>(queries, query + depth, shape.query.token, shape.queries - block_query,
                                          shape.head_size - depth);
            fill_tile<DEPTH, DEPTH_PITCH>(keys, key + (int64_t(first_key) * shape.key.token + depth), shape.key.token,
                                          count, shape.head_size - depth);
            if (depth == 0) {
                fill_tile<VALUES, VALUES>(values, value + int64_t(first_key) * shape.value.token, shape.value.token,
                                          count, shape.head_size - first_value);
            }
            __syncthreads();
            multiply_piece(scores, queries, keys, line, column);
        }
        finish_scores(scores, shape, bias, first_query, first_key + column);
        soften<VALUES>(scores, state, weights, line, column);
        __syncwarp();
        multiply_values<VALUES>(state, weights, values, line, column);
    }
#pragma unroll
    for (int index = 0; index < LINES; ++index) {
        const float factor = 1.0f / sum_of_line(state.total[index]);
        const int64_t token = int64_t(row) * shape.queries + first_query + index;
        const Global<float> place = of.output + ((token * shape.heads + head) * shape.head_size + first_value);
#pragma unroll
        for (int part = 0; part < VALUES / SIDE; ++part) {
            const int index_of_value = column + part * SIDE;
            if (first_query + index < shape.queries && first_value + index_of_value < shape.head_size) {
                place[index_of_value] = state.sums[index][part] * factor;
            }
        }
    }
}

KERNEL(attention_f32_32, WIDE_THREADS, attend<32>, AttentionParameters<float>)
KERNEL(attention_f32_64, WIDE_THREADS, attend<64>, AttentionParameters<float>)
KERNEL(attention_f32_80, WIDE_THREADS, attend<80>, AttentionParameters<float>)
KERNEL(attention_f32_128, WIDE_THREADS, attend<128>, AttentionParameters<float>)
