// Tiles of attention on tensor cores: their sizes, how vectors come into shared memory, and the two products.
// `attention.cuh` has the plan.
#pragma once

#include "attention_shape.cuh"

// Values in 16 bytes.
constexpr int PIECE = 8;

template <class Type_, int SIZE_, int VALUES_, int ROW_TILES_, int WARPS_, int KEYS_, int BUFFERS_>
struct AttentionTile {
    using Type = Type_;
    static constexpr int SIZE = SIZE_;
    static constexpr int VALUES = VALUES_;
    static constexpr int ROW_TILES = ROW_TILES_;
    // Rows that a lane has a part of.
    static constexpr int LANE_ROWS = 2 * ROW_TILES;
    static constexpr int KEYS = KEYS_;
    // Keys of a row that a lane has.
    static constexpr int LANE_KEYS = KEYS / 4;
    static constexpr int THREADS = 32 * WARPS_;
    static constexpr int WARP_QUERIES = 16 * ROW_TILES;
    static constexpr int QUERIES = WARPS_ * WARP_QUERIES;
    static_assert(SIZE % 16 == 0 && VALUES % 16 == 0 && KEYS % 16 == 0, "tiles are made of 16 x 16");
    // From row to row of shared memory.
    static constexpr int PITCH = SIZE + PIECE;
    static constexpr int VALUE_PITCH = VALUES + PIECE;
    // Buffers of keys and, behind them, values.
    static constexpr int BUFFERS = BUFFERS_;
    static constexpr int BUFFER = KEYS * (PITCH + VALUE_PITCH);

    // Scores of a warp's rows, before they are scaled: `d` of the product of two tiles of 16 x 8.
    using Scores = float[ROW_TILES][KEYS / 8][4];
    // Sums of weighted values of the same rows.
    using Sums = float[ROW_TILES][VALUES / 8][4];
};

// Two values rounded to T, the first in the lower half.
template <class T>
__device__ __forceinline__ uint32_t rounded_pair(float first, float second);

#ifdef __CUDACC__
template <>
__device__ __forceinline__ uint32_t rounded_pair<f16>(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
template <>
__device__ __forceinline__ uint32_t rounded_pair<bf16>(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
#else
template <class T>
uint32_t rounded_pair(float first, float second) {
    return from_float<T>(first).bits | uint32_t(from_float<T>(second).bits) << 16;
}
#endif

// Up to 8 values of which `count` are there, where they cannot be copied as one piece.
template <class T>
__device__ __forceinline__ Pack<T, PIECE> gathered_piece(Global<const T> from, int count) {
    Pack<T, PIECE> piece;
#pragma unroll
    for (int index = 0; index < PIECE; ++index) {
        piece.values[index] = from_float<T>(0.0f);
        if (index < count) piece.values[index] = from[index];
    }
    return piece;
}

// Which values of many vectors a thread copies: one piece of every LINES-th vector.
template <int COLUMNS, int THREADS>
struct PieceOfVectors {
    static constexpr int PIECES = COLUMNS / PIECE;
    static constexpr int LINES = THREADS / PIECES;
    const int line = int(threadIdx.x) / PIECES;
    const int column = int(threadIdx.x) % PIECES * PIECE;
};

// Brings ROWS vectors, the first of which is `from`, into shared memory; what is past `count` vectors or `size` values
// becomes zeros.
template <class T, int ROWS, int COLUMNS, int THREADS>
__device__ __forceinline__ void load_vectors(Shared<T> to, Global<const T> from, int stride, int count, int size,
                                             bool is_aligned) {
    using Mine = PieceOfVectors<COLUMNS, THREADS>;
    constexpr int PITCH = COLUMNS + PIECE;
    const Mine mine;
    if (mine.line >= Mine::LINES) return;
    const int values = size - mine.column;
    from += int64_t(mine.line) * stride + mine.column;
    to += mine.line * PITCH + mine.column;
    if (is_aligned) {
        const int lines = values > 0 ? count - mine.line : 0;
#pragma unroll
        for (int line = 0; line < ROWS; line += Mine::LINES) {
            if (line + Mine::LINES > ROWS && line + mine.line >= ROWS) break;
            copy_async_16(to + line * PITCH, from, line < lines);
            from += int64_t(Mine::LINES) * stride;
        }
        return;
    }
#pragma unroll 1
    for (int line = mine.line; line < ROWS; line += Mine::LINES) {
        const Pack<T, PIECE> piece = gathered_piece<T>(from, line < count ? min(PIECE, values) : 0);
        *pointer_cast<Pack<T, PIECE>>(to) = piece;
        to += Mine::LINES * PITCH;
        from += int64_t(Mine::LINES) * stride;
    }
}

// scores += queries * keys of one tile. The pointers are to the row of 8 that this lane names of the first 16 x 16.
template <class Tile>
__device__ __forceinline__ void multiply_keys(typename Tile::Scores& scores, Shared<typename Tile::Type> queries,
                                              Shared<typename Tile::Type> keys) {
#pragma unroll
    for (int step = 0; step < Tile::SIZE; step += 16) {
        uint32_t a[Tile::ROW_TILES][4];
#pragma unroll
        for (int row = 0; row < Tile::ROW_TILES; ++row) {
            load_matrices(a[row], queries + (row * 16 * Tile::PITCH + step));
        }
#pragma unroll
        for (int pair = 0; pair < Tile::KEYS / 16; ++pair) {
            uint32_t b[4];
            load_matrices(b, keys + (pair * 16 * Tile::PITCH + step));
#pragma unroll
            for (int row = 0; row < Tile::ROW_TILES; ++row) {
                multiply_add<typename Tile::Type>(scores[row][2 * pair], a[row], {b[0], b[1]});
                multiply_add<typename Tile::Type>(scores[row][2 * pair + 1], a[row], {b[2], b[3]});
            }
        }
    }
}

// sums += weights * values of one tile. Weights are rounded and paired here: as they lie, they are an `a`.
template <class Tile>
__device__ __forceinline__ void multiply_values(typename Tile::Sums& sums, const typename Tile::Scores& weights,
                                                Shared<typename Tile::Type> values) {
    using T = typename Tile::Type;
#pragma unroll
    for (int step = 0; step < Tile::KEYS / 16; ++step) {
        uint32_t a[Tile::ROW_TILES][4];
#pragma unroll
        for (int row = 0; row < Tile::ROW_TILES; ++row) {
            const float(&left)[4] = weights[row][2 * step];
            const float(&right)[4] = weights[row][2 * step + 1];
            a[row][0] = rounded_pair<T>(left[0], left[1]);
            a[row][1] = rounded_pair<T>(left[2], left[3]);
            a[row][2] = rounded_pair<T>(right[0], right[1]);
            a[row][3] = rounded_pair<T>(right[2], right[3]);
        }
#pragma unroll
        for (int pair = 0; pair < Tile::VALUES / 16; ++pair) {
            uint32_t b[4];
            load_matrices_transposed(b, values + (step * 16 * Tile::VALUE_PITCH + pair * 16));
#pragma unroll
            for (int row = 0; row < Tile::ROW_TILES; ++row) {
                multiply_add<T>(sums[row][2 * pair], a[row], {b[0], b[1]});
                multiply_add<T>(sums[row][2 * pair + 1], a[row], {b[2], b[3]});
            }
        }
    }
}
