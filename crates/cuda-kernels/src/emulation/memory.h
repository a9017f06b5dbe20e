// Memory of an emulated device, every access to which is checked.
//
// Two bytes of memory have a cell, which knows whether they were ever written, and who wrote and who read them last. With
// it an access finds
//   * that it is outside of every buffer, or not a multiple of its own size;
//   * that nobody has written what it reads;
//   * a race: another thread has touched the same bytes, one of the two writes, and nothing orders them. Threads of a block are
//     ordered by `__syncthreads`, those of a warp by `__syncwarp` as well, blocks by nothing but the end of the launch.
// Shuffles and votes order no accesses, as on a device. Atomics may meet each other, but no ordinary access.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace emulation {

constexpr std::size_t CELL_BYTES = 2;

// When a thread did something, as far as barriers can tell.
struct Moment {
    std::uint32_t thread = 0;  // of the grid, counted from 1; 0: never
    std::uint32_t barriers = 0;  // `__syncthreads` that it had passed
    std::uint32_t syncs = 0;  // `__syncwarp` that it had passed
};

struct Cell {
    Moment writer;
    Moment reader;
    std::uint64_t epoch = 0;  // of what the two moments are: a launch, or a block of it for shared memory
    bool is_written = false;
    bool is_atomic = false;  // the last write
    bool has_readers_in_warp = false;  // others read since `reader` did, of its warp
    bool has_readers_in_block = false;  // or of another one
    bool has_readers_elsewhere = false;  // or in another block
};

enum class Access { Read, Write, Atomic };

// Bytes with their cells.
class Region {
  public:
    // Bytes that nobody may touch surround them, as some kernels are only wrong by a little.
    Region(std::size_t bytes, bool forgets_with_epoch);

    unsigned char* begin() const { return begin_; }
    std::size_t bytes() const { return bytes_; }
    bool contains(std::uintptr_t address) const { return address - reinterpret_cast<std::uintptr_t>(begin_) < bytes_; }

    // Ends the launch if the access is at fault.
    void check(std::uintptr_t address, std::size_t size, Access access, const char* space);
    // Marks bytes as (un)written by the host, or by a copy that is under way.
    void mark(std::size_t from, std::size_t size, bool is_written);
    std::size_t unwritten() const;

  private:
    void check_cell(Cell& cell, Access access, std::size_t place, const char* space);

    std::unique_ptr<unsigned char[]> storage_;
    unsigned char* begin_;
    std::size_t bytes_;
    bool forgets_;
    std::vector<Cell> cells_;
};

// Global memory.
class Heap {
  public:
    std::uint64_t allocate(std::size_t bytes);
    void release(std::uint64_t address);
    Region* find(std::uintptr_t address);

  private:
    std::map<std::uintptr_t, std::unique_ptr<Region>> regions_;
    Region* last_ = nullptr;
};

struct GlobalSpace {
    static constexpr const char* NAME = "global";
    static Region& region(std::uintptr_t address, std::size_t size);
};

struct SharedSpace {
    static constexpr const char* NAME = "shared";
    static Region& region(std::uintptr_t address, std::size_t size);
};

template <class Space>
void check(const void* pointer, std::size_t size, Access access) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    Space::region(address, size).check(address, size, access, Space::NAME);
}

// What an element of memory is to an expression.
template <class T, class Space>
class Reference {
  public:
    explicit Reference(T* pointer) : pointer_(pointer) {}
    Reference(const Reference&) = default;

    operator std::remove_const_t<T>() const {
        check<Space>(pointer_, sizeof(T), Access::Read);
        return *pointer_;
    }
    const Reference& operator=(const std::remove_const_t<T>& value) const {
        check<Space>(pointer_, sizeof(T), Access::Write);
        *pointer_ = value;
        return *this;
    }
    const Reference& operator=(const Reference& other) const { return *this = std::remove_const_t<T>(other); }
    template <class U>
    const Reference& operator+=(const U& value) const { return *this = std::remove_const_t<T>(*this) + value; }
    template <class U>
    const Reference& operator*=(const U& value) const { return *this = std::remove_const_t<T>(*this) * value; }

  private:
    T* pointer_;
};

// A pointer of a kernel. On a device it is a plain one.
template <class T, class Space>
class Pointer {
  public:
    Pointer() = default;
    Pointer(std::nullptr_t) : pointer_(nullptr) {}
    explicit Pointer(T* pointer) : pointer_(pointer) {}

    operator Pointer<const T, Space>() const { return Pointer<const T, Space>(pointer_); }
    explicit operator bool() const { return pointer_ != nullptr; }
    bool operator==(std::nullptr_t) const { return pointer_ == nullptr; }
    bool operator!=(std::nullptr_t) const { return pointer_ != nullptr; }

    Reference<T, Space> operator*() const { return Reference<T, Space>(pointer_); }
    template <class Index>
    Reference<T, Space> operator[](Index index) const { return *(*this + index); }
    // In bytes: a place that no kernel may touch can be named, and need not be inside anything.
    template <class Index>
    Pointer operator+(Index index) const { return at(static_cast<std::ptrdiff_t>(index)); }
    template <class Index>
    Pointer operator-(Index index) const { return at(-static_cast<std::ptrdiff_t>(index)); }
    template <class Index>
    Pointer& operator+=(Index index) { return *this = *this + index; }

    T* raw() const { return pointer_; }

  private:
    Pointer at(std::ptrdiff_t index) const {
        const auto bytes = static_cast<std::uintptr_t>(index * static_cast<std::ptrdiff_t>(sizeof(T)));
        return Pointer(reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(pointer_) + bytes));
    }

    T* pointer_;
};

}  // namespace emulation
