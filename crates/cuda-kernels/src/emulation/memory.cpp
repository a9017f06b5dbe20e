#include "memory.h"

#include <cstring>

#include "threads.h"

namespace emulation {

namespace {

constexpr std::size_t ALIGNMENT = 256;  // what a device's allocator gives
constexpr std::size_t MARGIN = 4096;

bool is_ordered(const Moment& earlier, const Moment& now) {
    const std::uint32_t a = earlier.thread - 1, b = now.thread - 1;
    if (earlier.thread == 0 || a == b) return true;
    const std::uint32_t threads = launch().threads_per_block();
    if (a / threads != b / threads) return false;
    if (earlier.barriers < now.barriers) return true;
    // A block begins a warp, as its threads are a multiple of 32.
    return a / 32 == b / 32 && earlier.syncs < now.syncs;
}

bool is_ordered_after_readers(const Cell& cell, const Moment& now) {
    if (cell.reader.thread == 0) return true;
    if (cell.has_readers_elsewhere) return false;
    const std::uint32_t a = cell.reader.thread - 1, b = now.thread - 1, threads = launch().threads_per_block();
    if (a / threads != b / threads) return false;
    if (cell.reader.barriers < now.barriers) return true;
    if (cell.has_readers_in_block || a / 32 != b / 32) return false;
    if (cell.reader.syncs < now.syncs) return true;
    return a == b && !cell.has_readers_in_warp;
}

// Keeps enough of all readers since the last write: the latest, and whether there are others as late.
void note_reader(Cell& cell, const Moment& now) {
    const Moment before = cell.reader;
    const std::uint32_t threads = launch().threads_per_block();
    cell.reader = now;
    if (before.thread == 0) return;
    const std::uint32_t a = before.thread - 1, b = now.thread - 1;
    if (a / threads != b / threads) {
        cell.has_readers_elsewhere = true;
    } else if (before.barriers < now.barriers) {
        cell.has_readers_in_block = cell.has_readers_in_warp = false;
    } else if (a / 32 != b / 32) {
        cell.has_readers_in_block = true;
    } else if (before.syncs < now.syncs) {
        cell.has_readers_in_warp = false;
    } else if (a != b) {
        cell.has_readers_in_warp = true;
    }
}

}  // namespace

Region::Region(std::size_t bytes, bool forgets_with_epoch)
    : storage_(new unsigned char[bytes + 2 * MARGIN + ALIGNMENT]),
      bytes_(bytes),
      forgets_(forgets_with_epoch),
      cells_((bytes + CELL_BYTES - 1) / CELL_BYTES) {
    const auto first = reinterpret_cast<std::uintptr_t>(storage_.get()) + MARGIN;
    begin_ = reinterpret_cast<unsigned char*>((first + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    // Not a number in any type, for what is read although nobody has written it.
    std::memset(begin_, 0xff, bytes);
}

void Region::check(std::uintptr_t address, std::size_t size, Access access, const char* space) {
    const std::size_t from = address - reinterpret_cast<std::uintptr_t>(begin_);
    if (address % size != 0) fault("%s memory: an access of %zu bytes at byte %zu is not aligned", space, size, from);
    for (std::size_t cell = from / CELL_BYTES; cell * CELL_BYTES < from + size; ++cell) {
        check_cell(cells_[cell], access, cell * CELL_BYTES, space);
    }
}

void Region::check_cell(Cell& cell, Access access, std::size_t place, const char* space) {
    const std::uint64_t epoch = launch().epoch(forgets_);
    if (cell.epoch != epoch) {
        cell = Cell{{}, {}, epoch, cell.is_written && !forgets_, false, false, false, false};
    }
    const Moment now = current().moment();
    if (access != Access::Write && !cell.is_written) {
        fault("%s memory: byte %zu is read and was never written", space, place);
    }
    if (!(access == Access::Atomic && cell.is_atomic) && !is_ordered(cell.writer, now)) {
        fault("%s memory: a race: thread %u of the grid wrote byte %zu, and no barrier lies between", space,
              cell.writer.thread - 1, place);
    }
    if (access == Access::Read) return note_reader(cell, now);
    if (!is_ordered_after_readers(cell, now)) {
        fault("%s memory: a race: thread %u of the grid read byte %zu, and no barrier lies between", space,
              cell.reader.thread - 1, place);
    }
    cell.writer = now;
    cell.reader = Moment{};
    cell.has_readers_in_warp = cell.has_readers_in_block = cell.has_readers_elsewhere = false;
    cell.is_written = true;
    cell.is_atomic = access == Access::Atomic;
}

void Region::mark(std::size_t from, std::size_t size, bool is_written) {
    for (std::size_t cell = from / CELL_BYTES; cell * CELL_BYTES < from + size; ++cell) {
        cells_[cell].is_written = is_written;
    }
}

std::size_t Region::unwritten() const {
    std::size_t count = 0;
    for (const Cell& cell : cells_) count += cell.is_written ? 0 : CELL_BYTES;
    return count;
}

std::uint64_t Heap::allocate(std::size_t bytes) {
    auto region = std::make_unique<Region>(bytes, false);
    const auto address = reinterpret_cast<std::uintptr_t>(region->begin());
    regions_[address] = std::move(region);
    return address;
}

void Heap::release(std::uint64_t address) {
    last_ = nullptr;
    regions_.erase(static_cast<std::uintptr_t>(address));
}

Region* Heap::find(std::uintptr_t address) {
    if (last_ != nullptr && last_->contains(address)) return last_;
    auto after = regions_.upper_bound(address);
    if (after == regions_.begin()) return nullptr;
    Region* region = std::prev(after)->second.get();
    return region->contains(address) ? last_ = region : nullptr;
}

Region& GlobalSpace::region(std::uintptr_t address, std::size_t size) {
    Region* region = launch().heap().find(address);
    if (region == nullptr || !region->contains(address + size - 1)) {
        fault("global memory: an access of %zu bytes is outside of every buffer", size);
    }
    return *region;
}

Region& SharedSpace::region(std::uintptr_t address, std::size_t size) {
    for (Region* region : launch().shared_regions()) {
        if (region->contains(address) && region->contains(address + size - 1)) return *region;
    }
    fault("shared memory: an access of %zu bytes is outside of every array", size);
}

}  // namespace emulation
