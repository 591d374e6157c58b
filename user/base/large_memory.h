// SPDX-License-Identifier: Apache-2.0
// Where Bytes (bytes.h) have their memory from. From 256 KiB on it is mapped by itself and kept for
// the next need when it is given back: the kernel zeroes every fresh page and takes a fault for
// each, which costs a segment more than its transport; and a heap that mixes segments with small
// things never gives their memory back.
// Promise: page-aligned, so that it can be written past the page cache as it is. At most
// kIdleMemoryBytesMax are kept per process, in the order they were given back; what is beyond goes
// back to the kernel at once. Below 256 KiB it is the heap.
// Callers: any thread. Sanitized builds have the heap only: they must see every use after the end.
// Failure: std::bad_alloc.
#pragma once

#include <cstddef>

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

// `bytes` is above zero, and the same for both.
std::byte* take_memory(size_t bytes);
void give_memory(std::byte* memory, size_t bytes) noexcept;

// What is kept and unused now.
size_t idle_memory_bytes();

}  // namespace herald
