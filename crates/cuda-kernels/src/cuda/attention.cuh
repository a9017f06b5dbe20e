// Attention that never writes the scores of all pairs (Dao, "FlashAttention-2", 2023), on tensor cores.
//
// A block answers QUERIES queries of one head, in all or, where a head is large, VALUES of its values. A warp has
// ROW_TILES x 16 queries, so the softmax of a row needs no other warp. Keys and values pass through shared memory, KEYS
// at a time. With one buffer, values arrive while scores are computed, and the next keys while values are summed; with
// two, which take twice the memory and half the barriers, the next tile arrives while this one is computed with.
//
//   queries [QUERIES, SIZE]   shared memory, once; in the end the same place gathers the output for wide writes
//   scores  [rows, KEYS]      registers, as products leave them, in f32
//   weights                   the same rounded in pairs, which is how the product with the values wants them
//   sums    [rows, VALUES]    registers, f32, relative to the largest score so far
//
// Rows of shared memory are 16 bytes longer than their values: their length is then an odd number of 16-byte pieces, and
// the 8 rows that an ldmatrix reads at a time lie in different banks. Values that a head has not (SIZE is its size
// rounded up) and keys past the last are zeros; scores of such keys are minus infinity.
//
// With two row tiles each fragment of keys and values that is read from shared memory is used twice, which is what
// bounds long sequences; one tile makes more blocks of a short one.
#pragma once

#include "attention_scores.cuh"

// What a block and a warp have to do.
template <class Tile>
struct AttentionPlace {
    const int query_blocks;
    const int row = int(blockIdx.z);
    const int head = int(blockIdx.y);
    // Of the block.
    const int first_query = int(blockIdx.x) % query_blocks * Tile::QUERIES;
    const int first_value = int(blockIdx.x) / query_blocks * Tile::VALUES;
    const int warp = int(threadIdx.x) / 32;
    const int lane = int(threadIdx.x) % 32;

    __device__ __forceinline__ explicit AttentionPlace(const AttentionShape& shape)
        : query_blocks((shape.queries + Tile::QUERIES - 1) / Tile::QUERIES) {}
};

// Vectors of a row's head, from which tiles are fetched.
template <class T>
struct HeadVectors {
    const Global<const T> first;
    const int stride;
    const int tokens;
    const int size;
    const bool is_aligned;

    // Begins to fetch ROWS vectors from a token on.
    template <int ROWS, int COLUMNS, int THREADS>
    __device__ __forceinline__ void fetch(Shared<T> to, int token) const {
        load_vectors<T, ROWS, COLUMNS, THREADS>(to, first + int64_t(token) * stride, stride, tokens - token, size,
                                                is_aligned);
    }
};

// Keys and values of a head.
template <class Tile>
struct KeysAndValues {
    using T = typename Tile::Type;
    const HeadVectors<T> keys;
    const HeadVectors<T> values;

    __device__ __forceinline__ void fetch_keys(Shared<T> buffer, int token) const {
        keys.template fetch<Tile::KEYS, Tile::SIZE, Tile::THREADS>(buffer, token);
    }
    __device__ __forceinline__ void fetch_values(Shared<T> buffer, int token) const {
        values.template fetch<Tile::KEYS, Tile::VALUES, Tile::THREADS>(buffer + Tile::KEYS * Tile::PITCH, token);
    }
};

// Divides sums by their totals and lays them, rounded, into the warp's rows of shared memory.
template <class Tile>
__device__ __forceinline__ void lay_out(typename Tile::Sums& sums, const RowState<Tile>& state,
                                        Shared<typename Tile::Type> rows, int lane) {
    using T = typename Tile::Type;
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        const float factor = 1.0f / sum_of_group(state.total[row]);
        const Shared<T> line = rows + ((row * 8 + lane / 4) * Tile::PITCH + lane % 4 * 2);
#pragma unroll
        for (int tile = 0; tile < Tile::VALUES / 8; ++tile) {
            const float left = sum_at<Tile>(sums, row, 2 * tile) * factor;
            const float right = sum_at<Tile>(sums, row, 2 * tile + 1) * factor;
            *pointer_cast<uint32_t>(line + tile * 8) = rounded_pair<T>(left, right);
        }
    }
}

// Writes the warp's rows to `output`, the head's first value of the warp's first query; queries are `stride` apart.
// `is_wide`: 16 bytes at a time.
template <class Tile>
__device__ __forceinline__ void write_rows(Global<typename Tile::Type> output, int64_t stride,
                                           Shared<typename Tile::Type> rows, int queries, int values, bool is_wide,
                                           int lane) {
    using T = typename Tile::Type;
    constexpr int PIECES = Tile::VALUES / PIECE;
#pragma unroll 1
    for (int index = lane; index < Tile::WARP_QUERIES * PIECES; index += 32) {
        const int line = index / PIECES;
        const int column = index % PIECES * PIECE;
        if (line >= queries || column >= values) continue;
        const Pack<T, PIECE> piece = *pointer_cast<Pack<T, PIECE>>(rows + (line * Tile::PITCH + column));
        const Global<T> place = output + (line * stride + column);
        if (is_wide) {
            store<PIECE, T>(place, piece);
        } else {
#pragma unroll
            for (int value = 0; value < PIECE; ++value) {
                if (column + value < values) place[value] = piece.values[value];
            }
        }
    }
}

// Before a tile's scores: its keys are there for all, and what follows them is under way.
template <class Tile>
__device__ __forceinline__ void begin_tile(const KeysAndValues<Tile>& source, Shared<typename Tile::Type> buffer,
                                           Shared<typename Tile::Type> next_buffer, int first_key, int keys) {
    wait_for_copies<0>();
    // Nobody reads the last tile's values any more either.
    __syncthreads();
    if constexpr (Tile::BUFFERS == 1) {
        source.fetch_values(buffer, first_key);
        commit_copies();
    } else if (first_key + Tile::KEYS < keys) {
        source.fetch_keys(next_buffer, first_key + Tile::KEYS);
        source.fetch_values(next_buffer, first_key + Tile::KEYS);
        commit_copies();
    }
}

// Before a tile's values are summed: they are there for all, and nobody reads its keys any more.
template <class Tile>
__device__ __forceinline__ void begin_values(const KeysAndValues<Tile>& source, Shared<typename Tile::Type> buffer,
                                             int first_key, int keys) {
    if constexpr (Tile::BUFFERS == 1) {
        wait_for_copies<0>();
        __syncthreads();
        if (first_key + Tile::KEYS < keys) {
            source.fetch_keys(buffer, first_key + Tile::KEYS);
            commit_copies();
        }
    }
}

template <class Tile>
__device__ __forceinline__ void attend(const AttentionParameters<typename Tile::Type>& of) {
    using T = typename Tile::Type;
    DYNAMIC_SHARED(T, queries);
    const AttentionShape& shape = of.shape;
    const AttentionPlace<Tile> place(shape);
    const bool is_aligned = shape.is_aligned != 0;
    const int values = min(shape.head_size - place.first_value, Tile::VALUES);
    const HeadVectors<T> query{head_of(of.query, shape.query, place.row, place.head), shape.query.token, shape.queries,
                               shape.head_size, is_aligned};
    const KeysAndValues<Tile> source{
        {head_of(of.key, shape.key, place.row, place.head), shape.key.token, shape.keys, shape.head_size, is_aligned},
        {head_of(of.value, shape.value, place.row, place.head) + place.first_value, shape.value.token, shape.keys,
         values, is_aligned}};

    Shared<T> buffer = queries + Tile::QUERIES * Tile::PITCH;
    Shared<T> next_buffer = Tile::BUFFERS == 1 ? buffer : buffer + Tile::BUFFER;
    query.template fetch<Tile::QUERIES, Tile::SIZE, Tile::THREADS>(queries, place.first_query);
    source.fetch_keys(buffer, 0);
    if (Tile::BUFFERS > 1) source.fetch_values(buffer, 0);
    commit_copies();

    // Where this lane reads rows for ldmatrix: 16 x 16 matrices go by columns of 8 for queries and (transposed) values, by
    // rows of 8 for keys.
    const Shared<T> warp_queries = queries + place.warp * Tile::WARP_QUERIES * Tile::PITCH;
    const Shared<T> query_rows = warp_queries + (place.lane % 16 * Tile::PITCH + place.lane / 16 * 8);
    const int key_rows = (place.lane / 16 * 8 + place.lane % 8) * Tile::PITCH + place.lane / 8 % 2 * 8;
    const int value_rows = Tile::KEYS * Tile::PITCH + place.lane % 16 * Tile::VALUE_PITCH + place.lane / 16 * 8;

    typename Tile::Sums sums = {};
    RowState<Tile> state;
#pragma unroll
    for (int row = 0; row < Tile::LANE_ROWS; ++row) {
        state.largest[row] = LOWEST;
        state.total[row] = 0.0f;
    }
    const int first_query = place.first_query + place.warp * Tile::WARP_QUERIES;
    const ScoreChange change(of.bias, shape, place.row, place.head, first_query + place.lane / 4);
    for (int first_key = 0; first_key < shape.keys; first_key += Tile::KEYS) {
        begin_tile<Tile>(source, buffer, next_buffer, first_key, shape.keys);
        typename Tile::Scores scores = {};
        multiply_keys<Tile>(scores, query_rows, buffer + key_rows);
        change_scores<Tile>(scores, change, first_key, first_key + place.lane % 4 * 2);
        follow_scores<Tile>(scores, sums, state, shape.scale * LOG2_E);
        soften<Tile>(scores, state, shape.scale * LOG2_E);
        begin_values<Tile>(source, buffer, first_key, shape.keys);
        multiply_values<Tile>(sums, scores, buffer + value_rows);
        if constexpr (Tile::BUFFERS > 1) {
            const Shared<T> computed = buffer;
            buffer = next_buffer;
            next_buffer = computed;
        }
    }
    // All lanes of the warp have read its queries, whose place the output takes.
    __syncwarp();
    lay_out<Tile>(sums, state, warp_queries, place.lane);
    __syncwarp();
    const int64_t stride = int64_t(shape.heads) * shape.head_size;
    const Global<T> output = of.output + ((int64_t(place.row) * shape.queries + first_query) * stride +
                                          int64_t(place.head) * shape.head_size + place.first_value);
    write_rows<Tile>(output, stride, warp_queries, shape.queries - first_query, values, shape.is_output_aligned,
                     place.lane);
}

// An instance for heads of up to SIZE values, named by that, its row tiles, warps, keys and buffers.
#define ATTENTION(DTYPE, SIZE, VALUES, ROW_TILES, WARPS, KEYS, BUFFERS)                                               \
    using Tile_##DTYPE##_##SIZE##_##ROW_TILES##_##WARPS##_##KEYS##_##BUFFERS =                                        \
        AttentionTile<DTYPE, SIZE, VALUES, ROW_TILES, WARPS, KEYS, BUFFERS>;                                          \
    KERNEL(attention_##DTYPE##_##SIZE##_##ROW_TILES##_##WARPS##_##KEYS##_##BUFFERS, 32 * WARPS,                       \
           attend<Tile_##DTYPE##_##SIZE##_##ROW_TILES##_##WARPS##_##KEYS##_##BUFFERS>, AttentionParameters<DTYPE>)
