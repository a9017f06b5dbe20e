// What Rust sees of the emulation.
#include <cstdio>
#include <cstring>

#include "threads.h"

using namespace emulation;

namespace {

struct Machine {
    Heap heap;
    std::uint64_t epochs = 0;
};

}  // namespace

extern "C" {

Machine* emulation_new() { return new Machine; }

void emulation_free(Machine* machine) { delete machine; }

std::uint64_t emulation_allocate(Machine* machine, std::size_t bytes) { return machine->heap.allocate(bytes); }

void emulation_release(Machine* machine, std::uint64_t address) { machine->heap.release(address); }

void emulation_upload(Machine* machine, std::uint64_t address, const void* from, std::size_t bytes) {
    Region* region = machine->heap.find(address);
    if (region == nullptr || bytes == 0) return;
    std::memcpy(region->begin(), from, bytes);
    region->mark(0, bytes, true);
}

// How many bytes nobody has written.
std::size_t emulation_download(Machine* machine, std::uint64_t address, void* to, std::size_t bytes) {
    Region* region = machine->heap.find(address);
    if (region == nullptr || bytes == 0) return bytes;
    std::memcpy(to, region->begin(), bytes);
    return region->unwritten();
}

// Whether the launch was without fault; if not, the message is written.
bool emulation_launch(Machine* machine, KernelFunction kernel, const unsigned grid[3], unsigned threads,
                      std::size_t shared_bytes, const void* parameters, std::size_t bytes, char* message,
                      std::size_t message_bytes) {
    Launch launch(machine->heap, Index3{grid[0], grid[1], grid[2]}, Index3{threads, 1, 1}, shared_bytes, machine->epochs);
    if (launch.run(kernel, parameters, bytes)) return true;
    std::snprintf(message, message_bytes, "%s", launch.message());
    return false;
}

}
