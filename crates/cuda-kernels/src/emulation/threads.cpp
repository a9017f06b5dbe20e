// Fibers begin with ucontext and go on with sigsetjmp and siglongjmp, which leave the signal mask alone and so make no
// system call.
#include "threads.h"

#include <ucontext.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace emulation {

namespace {

constexpr std::size_t STACK_BYTES = 128 * 1024;
thread_local Launch* active_launch = nullptr;
thread_local Thread* active_thread = nullptr;

}  // namespace

Launch& launch() { return *active_launch; }
Thread& current() { return *active_thread; }

void fault(const char* format, ...) {
    char what[400], message[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const Index3 block = launch().block_index, thread = current().index;
    std::snprintf(message, sizeof message, "%s (thread %u,%u,%u of block %u,%u,%u)", what, thread.x, thread.y, thread.z,
                  block.x, block.y, block.z);
    launch().end(message);
}

Launch::Launch(Heap& heap, Index3 grid, Index3 block, std::size_t dynamic_bytes, std::uint64_t& epochs)
    : grid(grid),
      block(block),
      heap_(heap),
      threads_(block.x * block.y * block.z),
      launch_epoch_(++epochs),
      epochs_(epochs),
      fibers_(threads_),
      warps_(threads_ / LANES),
      dynamic_(dynamic_bytes, true) {
    shared_.push_back(&dynamic_);
}

bool Launch::run(KernelFunction kernel, const void* parameters, std::size_t bytes) {
    if (threads_ == 0 || threads_ % LANES != 0 || threads_ > 1024) {
        std::snprintf(message_, sizeof message_, "blocks of %u threads: whole warps, up to 1024", threads_);
        return false;
    }
    kernel_ = kernel;
    parameters_ = parameters;
    parameter_bytes_ = bytes;
    active_launch = this;
    if (sigsetjmp(abort_, 0) == 0) {
        for (block_index.z = 0; block_index.z < grid.z; ++block_index.z) {
            for (block_index.y = 0; block_index.y < grid.y; ++block_index.y) {
                for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) run_block();
            }
        }
    }
    active_launch = nullptr;
    active_thread = nullptr;
    return message_[0] == 0;
}

void Launch::run_block() {
    block_epoch_ = ++epochs_;
    at_barrier_ = barriers_ = 0;
    const unsigned block_number = (block_index.z * grid.y + block_index.y) * grid.x + block_index.x;
    for (Warp& warp : warps_) {
        warp.completed = 0;
        warp.buffers[0].arrived = warp.buffers[1].arrived = 0;
    }
    for (unsigned number = 0; number < threads_; ++number) {
        Thread& thread = fibers_[number];
        thread.index = {number % block.x, number / block.x % block.y, number / block.x / block.y};
        thread.lane = number % LANES;
        thread.warp = number / LANES;
        thread.number = block_number * threads_ + number;
        thread.barriers = thread.syncs = thread.collectives = 0;
        thread.copies.clear();
        thread.groups.clear();
        thread.state = Thread::State::Ready;
        thread.has_begun = false;
    }
    for (;;) {
        unsigned done = 0, resumed = 0;
        for (Thread& thread : fibers_) {
            if (thread.state != Thread::State::Done && !is_waiting(thread)) {
                resume(thread);
                ++resumed;
            }
            done += thread.state == Thread::State::Done;
        }
        if (done == threads_) return;
        if (resumed == 0) {
            const unsigned at_barrier = at_barrier_;
            for (Thread& thread : fibers_) {
                if (thread.state == Thread::State::Done) continue;
                active_thread = &thread;
                fault("threads wait for ever: %u of %u have ended, %u are at a barrier, %u in an operation of a warp", done,
                      threads_, at_barrier, threads_ - done - at_barrier);
            }
        }
    }
}

bool Launch::is_waiting(const Thread& thread) const {
    switch (thread.state) {
        case Thread::State::AtBarrier: return thread.barriers >= barriers_;
        case Thread::State::InWarp: return thread.collectives >= warps_[thread.warp].completed;
        default: return false;
    }
}

void Launch::begin_fiber() {
    Launch& self = launch();
    self.kernel_(self.parameters_, self.parameter_bytes_);
    Thread& thread = current();
    if (!thread.copies.empty() || !thread.groups.empty()) fault("a thread ends with copies that it never waited for");
    thread.state = Thread::State::Done;
    siglongjmp(self.scheduler_, 1);
}

void Launch::resume(Thread& thread) {
    active_thread = &thread;
    thread.state = Thread::State::Ready;
    if (sigsetjmp(scheduler_, 0) != 0) return;
    if (thread.has_begun) siglongjmp(thread.context, 1);
    thread.has_begun = true;
    if (!thread.stack) thread.stack.reset(new unsigned char[STACK_BYTES]);
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = thread.stack.get();
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, begin_fiber, 0);
    setcontext(&context);
}

void Launch::pause() {
    if (sigsetjmp(current().context, 0) == 0) siglongjmp(scheduler_, 1);
}

void Launch::barrier() {
    Thread& thread = current();
    if (++at_barrier_ == threads_) {
        at_barrier_ = 0;
        ++barriers_;
    } else {
        thread.state = Thread::State::AtBarrier;
        pause();
    }
    ++thread.barriers;
}

const unsigned char (*Launch::exchange(Collective kind, unsigned mask, const void* value, std::size_t bytes))[SLOT_BYTES] {
    Thread& thread = current();
    if (mask != 0xffffffffu) fault("an operation of a part of a warp (mask %#x); only whole warps are emulated", mask);
    Warp& warp = warps_[thread.warp];
    Warp::Buffer& buffer = warp.buffers[thread.collectives % 2];
    if (buffer.arrived == 0) buffer.kind = kind;
    if (buffer.kind != kind) fault("lanes of a warp are in different operations");
    std::memcpy(buffer.slots[thread.lane], value, bytes);
    if (++buffer.arrived == LANES) {
        // All have arrived here, so nobody reads the last operation's results.
        warp.buffers[(thread.collectives + 1) % 2].arrived = 0;
        ++warp.completed;
    } else {
        thread.state = Thread::State::InWarp;
        pause();
    }
    ++thread.collectives;
    return buffer.slots;
}

unsigned char* Launch::static_shared(const void* site, std::size_t bytes) {
    for (auto& [known, region] : static_) {
        if (known == site) return region->begin();
    }
    static_.emplace_back(site, std::make_unique<Region>(bytes, true));
    shared_.push_back(static_.back().second.get());
    return shared_.back()->begin();
}

void Launch::end(const char* message) {
    std::snprintf(message_, sizeof message_, "%s", message);
    siglongjmp(abort_, 1);
}

}  // namespace emulation
