// SPDX-License-Identifier: Apache-2.0
#include "user/base/large_memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <vector>

#ifdef HERALD_NO_LARGE_MEMORY

size_t herald::idle_memory_bytes() { return 0; }

#else

namespace herald {

namespace {

struct Piece {
    void* memory;
    size_t bytes;  // of the mapping
};

// Its own containers are small: their memory comes from the heap, never from here.
struct LargeMemory {
    std::mutex lock;          // a leaf; guards all below
    std::vector<Piece> used;  // some dozens: searched from the end
    std::deque<Piece> idle;   // given back last: at the end
    size_t idle_bytes = 0;

    void* take(size_t bytes);
    bool give(void* memory);
};

// Never destroyed: statics may hold memory longer than any order of destruction says.
LargeMemory& large_memory() {
    static LargeMemory& made = []() -> LargeMemory& {
        auto* const large = ::new (std::malloc(sizeof(LargeMemory))) LargeMemory;
        // As the heap does: a child of several threads must not find the lock held for ever.
        ::pthread_atfork([] { large_memory().lock.lock(); }, [] { large_memory().lock.unlock(); },
                         [] { large_memory().lock.unlock(); });
        return *large;
    }();
    return made;
}

// Steps of an eighth: segments of nearly the same length can use each other's memory, and no more
// than an eighth of it lies idle.
size_t rounded(size_t bytes) {
    const size_t step = std::bit_floor(bytes) / 8;
    return (bytes + step - 1) / step * step;
}

// Nothing when there is no memory.
void* LargeMemory::take(size_t bytes) {
    if (bytes > PTRDIFF_MAX / 2) return nullptr;
    const size_t size = rounded(bytes);
    const std::lock_guard hold(lock);
    if (used.size() == used.capacity()) used.reserve(used.size() * 2 + 64);
    // The one given back last: its bytes may still be in a cache of the processor.
    for (auto at = idle.rbegin(); at != idle.rend(); ++at) {
        if (at->bytes != size) continue;
        const Piece piece = *at;
        idle.erase(std::next(at).base());
        idle_bytes -= size;
        used.push_back(piece);
        return piece.memory;
    }
    void* const memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    used.push_back({memory, size});
    return memory;
}

// False: it is the heap's.
bool LargeMemory::give(void* memory) {
    const std::lock_guard hold(lock);
    auto at = used.rbegin();
    while (at != used.rend() && at->memory != memory) ++at;
    if (at == used.rend()) return false;
    const Piece piece = *at;
    used.erase(std::next(at).base());
    if (piece.bytes > kIdleMemoryBytesMax) {
        ::munmap(piece.memory, piece.bytes);
        return true;
    }
    try {
        idle.push_back(piece);
    } catch (const std::bad_alloc&) {
        ::munmap(piece.memory, piece.bytes);
        return true;
    }
    idle_bytes += piece.bytes;
    // The oldest are those whose size is not asked for any more.
    while (idle_bytes > kIdleMemoryBytesMax) {
        ::munmap(idle.front().memory, idle.front().bytes);
        idle_bytes -= idle.front().bytes;
        idle.pop_front();
    }
    return true;
}

}  // namespace

size_t idle_memory_bytes() {
    LargeMemory& large = large_memory();
    const std::lock_guard hold(large.lock);
    return large.idle_bytes;
}

}  // namespace herald

namespace {
constexpr size_t kPageBytes = 4096;
}

// The forms for arrays, and those that do not throw, call these two.
void* operator new(size_t bytes) {
    for (;;) {
        void* const memory = bytes >= herald::kLargeMemoryBytes ? herald::large_memory().take(bytes)
                                                                : std::malloc(bytes ? bytes : 1);
        if (memory) return memory;
        const std::new_handler handler = std::get_new_handler();
        if (!handler) throw std::bad_alloc();
        handler();
    }
}

void operator delete(void* memory) noexcept {
    // The heap's own blocks lie 16 bytes behind a page's begin, or anywhere: one in 256 is asked
    // for in vain.
    if (memory && uintptr_t(memory) % kPageBytes == 0 && herald::large_memory().give(memory)) {
        return;
    }
    std::free(memory);
}

void operator delete(void* memory, size_t) noexcept { operator delete(memory); }

#endif
