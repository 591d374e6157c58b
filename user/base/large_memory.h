// SPDX-License-Identifier: Apache-2.0
// LargeAllocator is where Bytes have their memory from. From 256 KiB on it is mapped by itself and
// kept for the next need when it is given back: the kernel zeroes every fresh page and takes a
// fault for each, which costs a segment more than its transport; and a heap that mixes segments
// with small things never gives their memory back.
// Promise: page-aligned, so that it can be written past the page cache as it is. At most
// kIdleMemoryBytesMax are kept per process, in the order they were given back; what is beyond goes
// back to the kernel at once. Below 256 KiB it is the heap.
// Callers: any thread. Sanitized builds have none of it: they must see every use after the end.
// Failure: std::bad_alloc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace herald {

// Below this the heap is faster than asking.
inline constexpr size_t kLargeMemoryBytes = size_t{256} << 10;
// A window of segments: what an upload or an acknowledgement frees, the next one takes.
inline constexpr size_t kIdleMemoryBytesMax = size_t{32} << 20;

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HERALD_NO_LARGE_MEMORY 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HERALD_NO_LARGE_MEMORY 1
#endif
#ifdef HERALD_NO_LARGE_MEMORY
inline constexpr bool kHasLargeMemory = false;
#else
inline constexpr bool kHasLargeMemory = true;
#endif

// `bytes` is at least kLargeMemoryBytes, and the same for both.
void* take_large_memory(size_t bytes);
void give_large_memory(void* memory, size_t bytes) noexcept;

// What is kept and unused now.
size_t idle_memory_bytes();

template <typename T>
struct LargeAllocator {
    using value_type = T;

    LargeAllocator() = default;
    template <typename U>
    LargeAllocator(const LargeAllocator<U>&) noexcept {}

    T* allocate(size_t count) {
        if (!is_large(count)) return std::allocator<T>().allocate(count);
        if (count > PTRDIFF_MAX / sizeof(T)) throw std::bad_alloc();
        return static_cast<T*>(take_large_memory(count * sizeof(T)));
    }
    void deallocate(T* memory, size_t count) noexcept {
        if (!is_large(count)) return std::allocator<T>().deallocate(memory, count);
        give_large_memory(memory, count * sizeof(T));
    }
    bool operator==(const LargeAllocator&) const = default;

  private:
    static bool is_large(size_t count) {
        return kHasLargeMemory && count >= kLargeMemoryBytes / sizeof(T);
    }
};

}  // namespace herald
