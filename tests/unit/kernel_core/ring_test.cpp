// SPDX-License-Identifier: Apache-2.0
// The change ring: bounds, wrapping, release and pins; every interleaving of two producers and one
// reader on a ring of two slots; and threads, for the sanitizers.
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core.hpp"
#include "include/herald/limits.h"
#include "tests/catch.hpp"

namespace {

struct Ring {
    explicit Ring(u64 slot_count, u64 payload_bytes = 0)
        : header(std::make_unique<herald_cbt_header_abi>()), slots(slot_count) {
        cbt_ring_init(&ring, header.get(), slots.data(), slot_count, payload_bytes);
    }
    u64 push(u64 sector, u32 state = HERALD_CBT_RESERVED, u32 payload_bytes = 0, u64 payload = 0) {
        cbt_change change{};
        change.kind = HERALD_CBT_WRITE;
        change.sector = sector;
        change.sectors = 1;
        change.state = state;
        change.payload_bytes = payload_bytes;
        return cbt_ring_push(&ring, &change, payload, ++time);
    }
    void commit(u64 number) { cbt_slot_commit(cbt_ring_slot(&ring, number), HERALD_CBT_COMMITTED, 0); }

    std::unique_ptr<herald_cbt_header_abi> header;
    std::vector<herald_cbt_slot_abi> slots;
    cbt_ring ring{};
    u64 time = 0;
};

}  // namespace

TEST_CASE("the limits of the driver's ABI are those of the rest") {
    STATIC_REQUIRE(HERALD_CBT_SECTOR_BYTES == HERALD_SECTOR_BYTES);
    STATIC_REQUIRE(HERALD_CBT_BLOCK_BYTES == HERALD_BLOCK_BYTES);
    STATIC_REQUIRE((HERALD_CBT_SECTOR_BYTES << HERALD_CBT_BLOCK_SECTORS_SHIFT) == HERALD_BLOCK_BYTES);
    STATIC_REQUIRE(HERALD_CBT_DISK_SECTORS_MAX * HERALD_CBT_SECTOR_BYTES == HERALD_DISK_BYTES_MAX);
    STATIC_REQUIRE(HERALD_CBT_WRITE_BYTES_MAX == HERALD_RECORD_DATA_BYTES_MAX);
}

TEST_CASE("payload never wraps and never overlaps what is not released") {
    constexpr u64 kBytes = 1 << 16;
    Ring ring(64, kBytes);
    std::mt19937 random(7);
    struct Held {
        u64 number, start, bytes;
    };
    std::vector<Held> held;
    size_t wrapped = 0, refused = 0;
    for (int step = 0; step < 20000; step++) {
        u32 bytes = (1 + random() % 40) * 512;
        u32 alignment = bytes >= 4096 ? 4096 : 512;
        u64 start = 0;
        if (cbt_ring_slots_free(&ring.ring) > 0 && cbt_ring_payload_fits(&ring.ring, bytes, alignment, &start)) {
            REQUIRE(start % alignment == 0);
            REQUIRE((start & (kBytes - 1)) + bytes <= kBytes);
            for (const Held& other : held)
                REQUIRE((start >= other.start + other.bytes && start + bytes <= other.start + kBytes));
            wrapped += start >= kBytes && (start & (kBytes - 1)) == 0;
            u64 number = ring.push(step, HERALD_CBT_COMMITTED, bytes, start);
            held.push_back({number, start, bytes});
        } else {
            refused++;
            size_t gone = 1 + random() % held.size();
            REQUIRE(cbt_ring_release(&ring.ring, held[gone - 1].number + 1, CBT_NO_PIN));
            held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(gone));
        }
    }
    CHECK(wrapped > 100);
    CHECK(refused > 100);
    REQUIRE(cbt_ring_release(&ring.ring, ring.ring.head, CBT_NO_PIN));
    CHECK(cbt_ring_payload_free(&ring.ring) == kBytes);
}

TEST_CASE("a reservation larger than the payload area finds no room") {
    Ring ring(4, 4096);
    u64 start = 0;
    CHECK_FALSE(cbt_ring_payload_fits(&ring.ring, 4096 + 512, 512, &start));
    CHECK(cbt_ring_payload_fits(&ring.ring, 4096, 4096, &start));
    Ring none(4, 0);
    CHECK_FALSE(cbt_ring_payload_fits(&none.ring, 512, 512, &start));
}

TEST_CASE("release refuses what is outside the ring or still reserved") {
    Ring ring(4);
    ring.push(0);
    ring.push(1);
    ring.commit(1);
    CHECK_FALSE(cbt_ring_release(&ring.ring, 3, CBT_NO_PIN));
    CHECK_FALSE(cbt_ring_release(&ring.ring, ~0ull, CBT_NO_PIN));
    CHECK_FALSE(cbt_ring_release(&ring.ring, 1, CBT_NO_PIN));
    CHECK_FALSE(cbt_ring_release(&ring.ring, 2, CBT_NO_PIN));
    ring.commit(0);
    CHECK(cbt_ring_release(&ring.ring, 2, CBT_NO_PIN));
    CHECK_FALSE(cbt_ring_release(&ring.ring, 1, CBT_NO_PIN));
    CHECK(cbt_ring_release(&ring.ring, 2, CBT_NO_PIN));
    CHECK(ring.header->tail == 2);
}

TEST_CASE("an unresolved write's payload outlives its slot until the device is done") {
    Ring ring(8, 8192);
    u64 start = 0;
    REQUIRE(cbt_ring_payload_fits(&ring.ring, 4096, 4096, &start));
    u64 hung = ring.push(0, HERALD_CBT_RESERVED, 4096, start);
    REQUIRE(cbt_ring_payload_fits(&ring.ring, 4096, 4096, &start));
    ring.push(8, HERALD_CBT_COMMITTED, 4096, start);
    cbt_slot_commit(cbt_ring_slot(&ring.ring, hung), HERALD_CBT_UNRESOLVED, 0);
    REQUIRE(cbt_ring_release(&ring.ring, 2, 0 /* the pin: the hung write's start */));
    CHECK(ring.ring.tail == 2);
    CHECK_FALSE(cbt_ring_payload_fits(&ring.ring, 512, 512, &start));
    cbt_ring_unpin(&ring.ring, CBT_NO_PIN);
    CHECK(cbt_ring_payload_fits(&ring.ring, 4096, 4096, &start));
    CHECK(ring.header->payload_tail == 8192);
}

// Two producers, one reader, two slots. A producer: reserve (one step, as it is under the lock),
// copy its data in two halves, submit, commit. The reader: load head, look at the next slot, read its data,
// release. Every order of these steps is walked, with the states met before left out.
namespace {

struct World {
    herald_cbt_header_abi header;
    herald_cbt_slot_abi slots[2];
    cbt_ring ring;
    u64 clock;
    u8 data[2][2];  // of each slot's index: two halves of what was written
    struct Producer {
        int step;  // 0 reserve, 1 and 2 copy, 3 complete and commit
        u64 slot;
        int writes;
        u64 began_after;  // completions known when it was reserved
    } producers[2];
    struct {
        int step;
        u64 head, next;
        u64 time;
    } reader;
    bool ordered;
    int lost;
    u64 completed_slots[6];  // in order of completion
    int completions;
};

void rebase(World& world) {
    world.ring.header = &world.header;
    world.ring.slots = world.slots;
}

struct Walk {
    std::set<std::string> seen;
    size_t leaves = 0, latched = 0, wrapped = 0;
    int writes;
    bool commit_before_copy = false;  // the mutation that the walk must notice
    bool wrong = false;

    bool produce(World& world, int which) {
        World::Producer& me = world.producers[which];
        if (me.writes == writes) return false;
        switch (me.step) {
            case 0: {
                if (!world.ordered || cbt_ring_slots_free(&world.ring) == 0) {
                    // Latched: no write is recorded after one that was lost.
                    world.ordered = false;
                    world.lost++;
                    latched++;
                    me.writes++;
                    return true;
                }
                cbt_change change{};
                change.kind = HERALD_CBT_WRITE;
                change.sector = static_cast<u64>(which);
                change.sectors = 1;
                change.argument = static_cast<u64>(me.writes + 1);
                change.state = HERALD_CBT_RESERVED;
                me.slot = cbt_ring_push(&world.ring, &change, 0, cbt_clock_next(&world.clock, 100));
                for (int i = 0; i < world.completions; i++) wrong |= world.completed_slots[i] >= me.slot;
                wrapped += me.slot >= 2;
                me.step = 1;
                return true;
            }
            case 1:
            case 2:
                if (commit_before_copy && me.step == 1) {
                    cbt_slot_commit(cbt_ring_slot(&world.ring, me.slot), HERALD_CBT_COMMITTED, 0);
                }
                world.data[me.slot & 1][me.step - 1] = static_cast<u8>(which * 16 + me.writes + 1);
                me.step++;
                return true;
            default:
                world.completed_slots[world.completions++] = me.slot;
                if (!commit_before_copy)
                    cbt_slot_commit(cbt_ring_slot(&world.ring, me.slot), HERALD_CBT_COMMITTED, 0);
                me.step = 0;
                me.writes++;
                return true;
        }
    }

    bool read(World& world) {
        auto& me = world.reader;
        switch (me.step) {
            case 0:
                me.head = cbt_load_acquire(&world.header.head);
                if (me.head == me.next) return false;
                me.step = 1;
                return true;
            case 1: {
                const herald_cbt_slot_abi& slot = world.slots[me.next & 1];
                if (cbt_load_acquire(&slot.state) == HERALD_CBT_RESERVED) {
                    me.step = 0;
                    return false;
                }
                u8 expected = static_cast<u8>(slot.sector * 16 + slot.argument);
                wrong |= world.data[me.next & 1][0] != expected || world.data[me.next & 1][1] != expected;
                wrong |= slot.time_ns <= me.time;
                me.time = slot.time_ns;
                me.next++;
                me.step = 2;
                return true;
            }
            default:
                wrong |= !cbt_ring_release(&world.ring, me.next, CBT_NO_PIN);
                me.step = 0;
                return true;
        }
    }

    void go(const World& world) {
        if (wrong) return;
        World key = world;
        key.ring.header = nullptr;
        key.ring.slots = nullptr;
        if (!seen.insert(std::string(reinterpret_cast<const char*>(&key), sizeof(key))).second) return;
        bool moved = false;
        for (int who = 0; who < 3; who++) {
            World next = world;
            rebase(next);
            bool did = who < 2 ? produce(next, who) : read(next);
            if (!did && who == 2 && next.reader.step != world.reader.step) did = true;
            if (did) {
                moved = true;
                go(next);
            }
        }
        if (!moved) {
            leaves++;
            // Whatever was recorded was read, in order, to the end.
            wrong |= world.reader.next != world.ring.head || world.ring.tail != world.ring.head;
            wrong |= static_cast<int>(world.ring.head) + world.lost != 2 * writes;
        }
    }

    void run() {
        auto world = std::make_unique<World>();
        std::memset(world.get(), 0, sizeof(World));
        world->ordered = true;
        cbt_ring_init(&world->ring, &world->header, world->slots, 2, 0);
        go(*world);
    }
};

}  // namespace

TEST_CASE("every interleaving of two producers and a reader on two slots is read whole and in order") {
    Walk walk;
    walk.writes = 2;
    walk.run();
    CHECK_FALSE(walk.wrong);
    CHECK(walk.leaves > 3);
    CHECK(walk.latched > 100);
    CHECK(walk.wrapped > 100);
    CHECK(walk.seen.size() > 1000);
}

TEST_CASE("the walk notices a commit before the copy") {
    Walk walk;
    walk.writes = 1;
    walk.commit_before_copy = true;
    walk.run();
    CHECK(walk.wrong);
}

TEST_CASE("threads: what producers push under a lock a reader sees whole without it") {
    constexpr u64 kSlots = 8, kWrites = 20000;
    Ring ring(kSlots);
    std::mutex lock;
    std::atomic<u64> released{0};
    auto produce = [&](u64 base) {
        for (u64 i = 0; i < kWrites;) {
            u64 number = 0;
            bool pushed = false;
            {
                std::lock_guard guard(lock);
                if (released.load() > ring.ring.tail) REQUIRE(cbt_ring_release(&ring.ring, released.load(), CBT_NO_PIN));
                if (cbt_ring_slots_free(&ring.ring) > 0) {
                    number = ring.push(base + i);
                    pushed = true;
                }
            }
            if (pushed) {
                ring.commit(number);
                i++;
            } else {
                std::this_thread::yield();
            }
        }
    };
    std::thread one(produce, 0), two(produce, 1ull << 32);
    u64 last_time = 0, next_one = 0, next_two = 1ull << 32;
    bool wrong = false;
    for (u64 next = 0; next < 2 * kWrites;) {
        u64 head = cbt_load_acquire(&ring.header->head);
        if (next == head || cbt_load_acquire(&ring.slots[next % kSlots].state) == HERALD_CBT_RESERVED) {
            std::this_thread::yield();
            continue;
        }
        const herald_cbt_slot_abi& slot = ring.slots[next % kSlots];
        wrong |= slot.time_ns <= last_time;
        last_time = slot.time_ns;
        u64& expected = slot.sector >> 32 ? next_two : next_one;
        wrong |= slot.sector != expected++;
        released.store(++next);
    }
    one.join();
    two.join();
    CHECK_FALSE(wrong);
}

TEST_CASE("the clock is unique and increases when the wall stands still or goes back") {
    u64 last = 0;
    CHECK(cbt_clock_next(&last, 1000) == 1000);
    CHECK(cbt_clock_next(&last, 1000) == 1001);
    CHECK(cbt_clock_next(&last, 5) == 1002);
    CHECK(cbt_clock_next(&last, 2000) == 2000);
}
