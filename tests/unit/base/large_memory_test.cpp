// SPDX-License-Identifier: Apache-2.0
#include "user/base/large_memory.h"

#include <atomic>
#include <memory>
#include <thread>

#include "tests/catch.hpp"
#include "user/base/bytes.h"

using namespace herald;

namespace {

Bytes raw(size_t bytes) {
    Bytes made;
    made.reserve(bytes);
    return made;
}

}  // namespace

TEST_CASE("large memory that was given back serves the next need of nearly the same size") {
    Bytes first = raw(4'500'000);
    const void* const where = first.data();
    Bytes().swap(first);
    const Bytes second(4'600'000);
    if (kHasLargeMemory) CHECK(second.data() == where);
}

TEST_CASE("no more idle memory is kept than the limit says, and the newest is") {
    constexpr size_t kSize = 4u << 20;
    std::vector<Bytes> taken;
    for (size_t i = 0; i < 2 * kIdleMemoryBytesMax / kSize; ++i) taken.push_back(raw(kSize));
    const void* const last = taken.back().data();
    taken.clear();
    CHECK(idle_memory_bytes() == (kHasLargeMemory ? kIdleMemoryBytesMax : 0));
    Bytes again = raw(kSize);
    if (kHasLargeMemory) CHECK(again.data() == last);
    Bytes().swap(again);
    // What is larger than all of it is not kept at all.
    const size_t before = idle_memory_bytes();
    raw(2 * kIdleMemoryBytesMax);
    CHECK(idle_memory_bytes() == before);
}

TEST_CASE("large bytes begin at a page, and are zero though their memory is not new") {
    for (int round = 0; round < 2; ++round) {
        Bytes bytes(kLargeMemoryBytes + 1);
        if (kHasLargeMemory) CHECK(uintptr_t(bytes.data()) % 4096 == 0);
        CHECK(all_zero(bytes));
        std::fill(bytes.begin(), bytes.end(), std::byte{0xaa});
    }
}

TEST_CASE("more memory than there is, is refused as ever") {
    if (!kHasLargeMemory) return;  // a sanitizer ends the program
    Bytes bytes;
    CHECK_THROWS_AS(bytes.reserve(size_t{1} << 62), std::bad_alloc);
    CHECK_THROWS_AS(bytes.reserve(size_t{1} << 50), std::bad_alloc);
    CHECK(bytes.empty());
}

TEST_CASE("several threads never hold the same large memory") {
    std::vector<std::thread> threads;
    std::atomic<int> shared{0};
    for (int number = 1; number <= 4; ++number) {
        threads.emplace_back([number, &shared] {
            for (int round = 0; round < 200; ++round) {
                const size_t size = kLargeMemoryBytes << (round % 4);
                Bytes memory = raw(size);
                memory.resize(1);
                std::byte* const last = memory.data() + size - 1;
                memory[0] = *last = std::byte(number);
                std::this_thread::yield();
                shared += memory[0] != std::byte(number) || *last != std::byte(number);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(shared == 0);
}
