// The threads of an emulated launch: blocks one after the other, and the threads of a block as fibers of one thread of the
// host, each of which runs until the next barrier or the next operation of its warp.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "memory.h"

namespace emulation {

constexpr unsigned LANES = 32;
constexpr std::size_t SLOT_BYTES = 64;  // what a lane hands to its warp at most

struct Index3 {
    unsigned x, y, z;
};

// What the lanes of a warp do together. All have to do the same.
enum class Collective { Sync, Shuffle, Vote, Product, Matrices };

struct Copy {
    unsigned char* to;
    const unsigned char* from;  // null: zeros
    std::size_t bytes;
};

class Thread {
  public:
    Moment moment() const { return {number + 1, barriers, syncs}; }

    Index3 index{};
    unsigned lane = 0;
    unsigned warp = 0;
    std::uint32_t number = 0;  // in the grid
    std::uint32_t barriers = 0;
    std::uint32_t syncs = 0;
    std::uint32_t collectives = 0;
    // Asynchronous copies: those that are not committed, and committed groups, oldest first.
    std::vector<Copy> copies;
    std::vector<std::vector<Copy>> groups;

    enum class State { Ready, AtBarrier, InWarp, Done } state = State::Ready;
    bool has_begun = false;
    sigjmp_buf context;
    std::unique_ptr<unsigned char[]> stack;
};

// Two buffers, as a lane can be one operation ahead of those that still read the results of the last.
struct Warp {
    struct Buffer {
        alignas(16) unsigned char slots[LANES][SLOT_BYTES];
        Collective kind;
        unsigned arrived;
    } buffers[2];
    std::uint32_t completed;
};

using KernelFunction = void (*)(const void* parameters, std::size_t bytes);

class Launch {
  public:
    Launch(Heap& heap, Index3 grid, Index3 block, std::size_t dynamic_bytes, std::uint64_t& epochs);

    // Runs a kernel. True, or false and a message.
    bool run(KernelFunction kernel, const void* parameters, std::size_t bytes);
    const char* message() const { return message_; }

    Index3 grid, block, block_index{};
    unsigned threads_per_block() const { return threads_; }
    std::uint64_t epoch(bool of_block) const { return of_block ? block_epoch_ : launch_epoch_; }
    Heap& heap() { return heap_; }
    const std::vector<Region*>& shared_regions() const { return shared_; }
    unsigned char* dynamic_shared() const { return dynamic_.begin(); }
    // The array of a declaration, which is known by its address.
    unsigned char* static_shared(const void* site, std::size_t bytes);

    void barrier();
    // Hands `value` to the warp and waits for the others. Each lane's is in a slot then.
    const unsigned char (*exchange(Collective kind, unsigned mask, const void* value, std::size_t bytes))[SLOT_BYTES];
    [[noreturn]] void end(const char* message);

  private:
    void run_block();
    bool is_waiting(const Thread& thread) const;
    void resume(Thread& thread);
    void pause();
    static void begin_fiber();

    Heap& heap_;
    unsigned threads_;
    std::uint64_t launch_epoch_;
    std::uint64_t block_epoch_ = 0;
    std::uint64_t& epochs_;
    KernelFunction kernel_ = nullptr;
    const void* parameters_ = nullptr;
    std::size_t parameter_bytes_ = 0;
    std::vector<Thread> fibers_;
    std::vector<Warp> warps_;
    unsigned at_barrier_ = 0;
    std::uint32_t barriers_ = 0;
    Region dynamic_;
    std::vector<std::pair<const void*, std::unique_ptr<Region>>> static_;
    std::vector<Region*> shared_;
    sigjmp_buf scheduler_;
    sigjmp_buf abort_;
    char message_[512] = "";
};

Launch& launch();
Thread& current();

// Ends the launch with a message, which names the thread.
[[noreturn, gnu::format(printf, 1, 2)]] void fault(const char* format, ...);

}  // namespace emulation
