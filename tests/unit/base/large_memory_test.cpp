// SPDX-License-Identifier: Apache-2.0
#include "user/base/large_memory.h"

#include <atomic>
#include <memory>
#include <thread>

#include "tests/catch.hpp"
#include "user/base/bytes.h"

using namespace herald;

namespace {

using Raw = std::unique_ptr<std::byte[]>;
Raw raw(size_t bytes) { return std::make_unique_for_overwrite<std::byte[]>(bytes); }

}  // namespace

TEST_CASE("large memory that was given back serves the next need of nearly the same size") {
    Raw first = raw(4'500'000);
    const void* const where = first.get();
    first.reset();
    const Bytes second(4'600'000);
    if (kHasLargeMemory) CHECK(second.data() == where);
}

TEST_CASE("no more idle memory is kept than the limit says, and the newest is") {
    constexpr size_t kSize = 4u << 20;
    std::vector<Raw> taken;
    for (size_t i = 0; i < 2 * kIdleMemoryBytesMax / kSize; ++i) taken.push_back(raw(kSize));
    const void* const last = taken.back().get();
    for (Raw& memory : taken) memory.reset();
    CHECK(idle_memory_bytes() == (kHasLargeMemory ? kIdleMemoryBytesMax : 0));
    Raw again = raw(kSize);
    if (kHasLargeMemory) CHECK(again.get() == last);
    again.reset();
    // What is larger than all of it is not kept at all.
    const size_t before = idle_memory_bytes();
    raw(2 * kIdleMemoryBytesMax).reset();
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
                const Raw memory = raw(size);
                memory[0] = memory[size - 1] = std::byte(number);
                std::this_thread::yield();
                shared += memory[0] != std::byte(number) || memory[size - 1] != std::byte(number);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(shared == 0);
}
