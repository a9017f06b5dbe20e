// Products of small matrices by a warp (`mma.sync`, m16n8k16), the loads of their operands (`ldmatrix`), and asynchronous
// copies from global to shared memory (`cp.async`). `cuda/matrix.cuh` has the same names for a device.
#pragma once

#include "threads.h"

namespace emulation {

// Of a register's two values the one that lies lower.
template <class T>
float half_of(std::uint32_t pair, unsigned index) {
    return widen(T{std::uint16_t(pair >> 16 * index)});
}

struct Operands {
    std::uint32_t a[4], b[2];
};

// Fragments as PTX lays them over lanes: a lane has, of A, rows lane / 4 and that + 8, columns (lane % 4) * 2 and that + 8,
// each with its neighbour; of B the same columns as rows, and lane / 4 as its column.
template <class T>
float product_of(const unsigned char (*slots)[SLOT_BYTES], unsigned row, unsigned column) {
    float sum = 0.0f;
    for (unsigned k = 0; k < 16; ++k) {
        Operands a, b;
        const unsigned pair = k % 8 / 2;
        std::memcpy(&a, slots[row % 8 * 4 + pair], sizeof a);
        std::memcpy(&b, slots[column * 4 + pair], sizeof b);
        sum += half_of<T>(a.a[row / 8 + k / 8 * 2], k % 2) * half_of<T>(b.b[k / 8], k % 2);
    }
    return sum;
}

}  // namespace emulation

// d += a * b, of [16, 16] and [16, 8]. Lanes hold of d rows lane / 4 and that + 8, and columns (lane % 4) * 2 and the next.
template <class T>
void multiply_add(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    const emulation::Operands operands{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const auto slots =
        emulation::launch().exchange(emulation::Collective::Product, 0xffffffffu, &operands, sizeof operands);
    const unsigned lane = emulation::current().lane;
    for (unsigned index = 0; index < 4; ++index) {
        d[index] += emulation::product_of<T>(slots, lane / 4 + index / 2 * 8, lane % 4 * 2 + index % 2);
    }
}

namespace emulation {

template <int COUNT, bool IS_TRANSPOSED, class T>
void load_matrices(std::uint32_t (&registers)[COUNT], Pointer<T, SharedSpace> row) {
    static_assert(sizeof(T) == 2);
    struct Row {
        std::uint16_t values[8];
    } own{};
    const unsigned lane = current().lane;
    if (lane < 8 * COUNT) {
        const auto address = reinterpret_cast<std::uintptr_t>(row.raw());
        check<SharedSpace>(row.raw(), 16, Access::Read);
        std::memcpy(&own, reinterpret_cast<const void*>(address), sizeof own);
    }
    const auto slots = launch().exchange(Collective::Matrices, 0xffffffffu, &own, sizeof own);
    for (int matrix = 0; matrix < COUNT; ++matrix) {
        const auto value = [&](unsigned row, unsigned column) {
            Row values;
            std::memcpy(&values, slots[matrix * 8 + row], sizeof values);
            return std::uint32_t(values.values[column]);
        };
        const unsigned row = lane / 4, column = lane % 4 * 2;
        registers[matrix] = IS_TRANSPOSED ? value(column, row) | value(column + 1, row) << 16
                                          : value(row, column) | value(row, column + 1) << 16;
    }
}

}  // namespace emulation

// Matrices of 8 x 8, of which each of the first 8, 16 or 32 lanes points to a row of 16 bytes. A lane gets of each row
// lane / 4, columns (lane % 4) * 2 and the next; transposed, it gets them of columns.
template <int COUNT, class T>
void load_matrices(std::uint32_t (&registers)[COUNT], Shared<T> row) {
    emulation::load_matrices<COUNT, false>(registers, row);
}
template <int COUNT, class T>
void load_matrices_transposed(std::uint32_t (&registers)[COUNT], Shared<T> row) {
    emulation::load_matrices<COUNT, true>(registers, row);
}

// Begins a copy of 16 bytes; of a copy that is `valid` only. Else zeros are written, and nothing is read.
template <class T, class U>
void copy_async_16(Shared<T> to, Global<U> from, bool valid = true) {
    using namespace emulation;
    if (valid) check<GlobalSpace>(from.raw(), 16, Access::Read);
    check<SharedSpace>(to.raw(), 16, Access::Write);
    const auto address = reinterpret_cast<std::uintptr_t>(to.raw());
    Region& region = SharedSpace::region(address, 16);
    // Until it is waited for, nobody may read it.
    region.mark(address - reinterpret_cast<std::uintptr_t>(region.begin()), 16, false);
    Copy copy{reinterpret_cast<unsigned char*>(address), nullptr, 16};
    if (valid) copy.from = reinterpret_cast<const unsigned char*>(from.raw());
    current().copies.push_back(copy);
}

inline void commit_copies() {
    emulation::Thread& thread = emulation::current();
    thread.groups.push_back(std::move(thread.copies));
    thread.copies.clear();
}

// Waits until no more than `PENDING` of the newest groups are under way. What they copied is there for other threads after a
// barrier.
template <int PENDING>
void wait_for_copies() {
    using namespace emulation;
    auto& groups = current().groups;
    while (groups.size() > PENDING) {
        for (const Copy& copy : groups.front()) {
            check<SharedSpace>(copy.to, copy.bytes, Access::Write);
            if (copy.from == nullptr) {
                std::memset(copy.to, 0, copy.bytes);
            } else {
                std::memcpy(copy.to, copy.from, copy.bytes);
            }
        }
        groups.erase(groups.begin());
    }
}
