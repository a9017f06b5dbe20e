// What becomes of scores between the two products: cap, bias, the end of the keys, and the online softmax in base 2.
//
// A lane has of each 16 x 8 scores two rows, 8 apart, and two keys; the 4 lanes of a group have the same rows. `row`
// counts a lane's rows, `key` its keys of a row.
#pragma once

#include "attention_tile.cuh"

template <class Tile>
__device__ __forceinline__ float& score_at(typename Tile::Scores& scores, int row, int key) {
    return scores[row / 2][key / 2][row % 2 * 2 + key % 2];
}

// The same of sums.
template <class Tile>
__device__ __forceinline__ float& sum_at(typename Tile::Sums& sums, int row, int value) {
    return sums[row / 2][value / 2][row % 2 * 2 + value % 2];
}

// How far a lane's key lies from its first one.
__device__ __forceinline__ int distance_of(int key) { return key / 2 * 8 + key % 2; }

// What a lane does to scores, but for their scale.
struct ScoreChange {
    // The head's.
    const Global<const float> bias;
    const AttentionShape& shape;
    // The lane's first.
    const int query;

    __device__ __forceinline__ ScoreChange(Global<const float> biases, const AttentionShape& shape, int row, int head,
                                           int query)
        : bias(biases == nullptr ? biases : biases + (row * shape.bias.row + head * shape.bias.head)),
          shape(shape),
          query(query) {}
};

template <class Tile>
__device__ __forceinline__ void cap_scores(typename Tile::Scores& scores, const AttentionShape& shape) {
    const float factor = 1.0f / shape.scale;
    const float inverse_cap = 1.0f / shape.soft_cap;
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
#pragma unroll
        for (int key = 0; key < Tile::LANE_KEYS; ++key) {
            float& score = score_at<Tile>(scores, row, key);
            score = capped(score * shape.scale, shape.soft_cap, inverse_cap) * factor;
        }
    }
}

// Where the bias is the same for all queries, a lane reads it once for all its rows. What lies past the keys is not read.
template <class Tile>
__device__ __forceinline__ void add_bias(typename Tile::Scores& scores, const ScoreChange& change, int lane_key) {
    const AttentionShape& shape = change.shape;
    const float factor = 1.0f / shape.scale;
    const float lowest = HIDDEN * factor;
    const int left = shape.keys - lane_key;
    if (shape.bias.query == 0) {
        const Global<const float> line = change.bias + lane_key;
#pragma unroll
        for (int key = 0; key < Tile::LANE_KEYS; ++key) {
            const float added = distance_of(key) < left ? float(line[distance_of(key)]) : 0.0f;
#pragma unroll
            for (int row = 0; row < Tile::LANE_ROWS; ++row) {
                float& score = score_at<Tile>(scores, row, key);
                score = fmaxf(score + added * factor, lowest);
            }
        }
        return;
    }
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        const int query = min(change.query + row * 8, shape.queries - 1);
        const Global<const float> line = change.bias + (int64_t(query) * shape.bias.query + lane_key);
#pragma unroll
        for (int key = 0; key < Tile::LANE_KEYS; ++key) {
            const float added = distance_of(key) < left ? float(line[distance_of(key)]) : 0.0f;
            float& score = score_at<Tile>(scores, row, key);
            score = fmaxf(score + added * factor, lowest);
        }
    }
}

// Keys that are not there weigh nothing.
template <class Tile>
__device__ __forceinline__ void end_keys(typename Tile::Scores& scores, int lane_key, int keys) {
#pragma unroll
    for (int key = 0; key < Tile::LANE_KEYS; ++key) {
        if (lane_key + distance_of(key) < keys) continue;
#pragma unroll
        for (int row = 0; row < Tile::LANE_ROWS; ++row) score_at<Tile>(scores, row, key) = -INFINITY;
    }
}

// Of a tile from `first_key` on; the lane's first is `lane_key`.
template <class Tile>
__device__ __forceinline__ void change_scores(typename Tile::Scores& scores, const ScoreChange& change, int first_key,
                                              int lane_key) {
    const AttentionShape& shape = change.shape;
    if (shape.soft_cap > 0.0f) cap_scores<Tile>(scores, shape);
    if (change.bias != nullptr) add_bias<Tile>(scores, change, lane_key);
    if (first_key + Tile::KEYS > shape.keys) end_keys<Tile>(scores, lane_key, shape.keys);
}

__device__ __forceinline__ float largest_of_group(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

__device__ __forceinline__ float sum_of_group(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

// Of each of a lane's rows: the score that weights are relative to, and this lane's part of the sum of weights.
template <class Tile>
struct RowState {
    float largest[Tile::LANE_ROWS];
    float total[Tile::LANE_ROWS];
};

// Lets `largest` follow the scores, and brings sums and totals to it. It follows only where a score exceeds it by 8 after
// scaling: weights of up to 2^8 lose nothing in T, and sums seldom have to be touched. Whether they have is each row's
// own matter, so that a row comes to the same bits beside any others.
template <class Tile>
__device__ __forceinline__ void follow_scores(typename Tile::Scores& scores, typename Tile::Sums& sums,
                                              RowState<Tile>& state, float scale) {
    constexpr float SLACK = 8.0f;
    float factors[Tile::LANE_ROWS];
    bool is_any_rescaled = false;
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        float most = score_at<Tile>(scores, row, 0);
#pragma unroll
        for (int key = 1; key < Tile::LANE_KEYS; ++key) most = fmaxf(most, score_at<Tile>(scores, row, key));
        most = largest_of_group(most);
        const bool is_rescaled = (most - state.largest[row]) * scale > SLACK;
        factors[row] = is_rescaled ? fast_exp2((state.largest[row] - most) * scale) : 1.0f;
        state.largest[row] = is_rescaled ? most : state.largest[row];
        is_any_rescaled |= is_rescaled;
    }
    if (!__any_sync(ALL_LANES, is_any_rescaled)) return;
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        state.total[row] *= factors[row];
#pragma unroll
        for (int value = 0; value < Tile::VALUES / 4; ++value) sum_at<Tile>(sums, row, value) *= factors[row];
    }
}

// Turns scores into weights 2^(scale * (score - largest)), where `scale` includes the base, and adds them to the totals.
template <class Tile>
__device__ __forceinline__ void soften(typename Tile::Scores& scores, RowState<Tile>& state, float scale) {
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        const float offset = state.largest[row] * scale;
#pragma unroll
        for (int key = 0; key < Tile::LANE_KEYS; ++key) {
            float& score = score_at<Tile>(scores, row, key);
            score = fast_exp2(fmaf(score, scale, -offset));
            state.total[row] += score;
        }
    }
}
