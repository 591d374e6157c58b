// SPDX-License-Identifier: Apache-2.0
#include "user/base/large_memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <deque>
#include <mutex>
#include <new>

namespace herald {

namespace {

struct Piece {
    std::byte* memory;
    size_t bytes;  // of the mapping
};

struct IdleMemory {
    std::mutex lock;           // a leaf; guards all below
    std::deque<Piece> pieces;  // given back last: at the end
    size_t bytes = 0;
};

// Never destroyed: statics may hold memory longer than any order of destruction says.
IdleMemory& idle_memory() {
    static IdleMemory& made = []() -> IdleMemory& {
        // As the heap does: a child of several threads must not find the lock held for ever.
        ::pthread_atfork([] { idle_memory().lock.lock(); }, [] { idle_memory().lock.unlock(); },
                         [] { idle_memory().lock.unlock(); });
        return *new IdleMemory;
    }();
    return made;
}

// Steps of an eighth: segments of nearly the same length can use each other's memory, and no more
// than an eighth of it lies idle.
size_t rounded(size_t bytes) {
    const size_t step = std::bit_floor(bytes) / 8;
    return (bytes + step - 1) / step * step;
}

bool is_large(size_t bytes) { return kHasLargeMemory && bytes >= kLargeMemoryBytes; }

}  // namespace

std::byte* take_memory(size_t bytes) {
    if (!is_large(bytes)) return static_cast<std::byte*>(::operator new(bytes));
    if (bytes > PTRDIFF_MAX / 2) throw std::bad_alloc();
    const size_t size = rounded(bytes);
    {
        IdleMemory& idle = idle_memory();
        const std::lock_guard hold(idle.lock);
        // The one given back last: its bytes may still be in a cache of the processor.
        for (auto at = idle.pieces.rbegin(); at != idle.pieces.rend(); ++at) {
            if (at->bytes != size) continue;
            std::byte* const memory = at->memory;
            idle.pieces.erase(std::next(at).base());
            idle.bytes -= size;
            return memory;
        }
    }
    void* const memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
}

void give_memory(std::byte* memory, size_t bytes) noexcept {
    if (!is_large(bytes)) return ::operator delete(memory);
    const Piece piece{memory, rounded(bytes)};
    if (piece.bytes > kIdleMemoryBytesMax) {
        ::munmap(piece.memory, piece.bytes);
        return;
    }
    IdleMemory& idle = idle_memory();
    const std::lock_guard hold(idle.lock);
    try {
        idle.pieces.push_back(piece);
    } catch (const std::bad_alloc&) {
        ::munmap(piece.memory, piece.bytes);
        return;
    }
    idle.bytes += piece.bytes;
    // The oldest are those whose size is not asked for any more.
    while (idle.bytes > kIdleMemoryBytesMax) {
        ::munmap(idle.pieces.front().memory, idle.pieces.front().bytes);
        idle.bytes -= idle.pieces.front().bytes;
        idle.pieces.pop_front();
    }
}

size_t idle_memory_bytes() {
    IdleMemory& idle = idle_memory();
    const std::lock_guard hold(idle.lock);
    return idle.bytes;
}

}  // namespace herald
