// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/machine.h"

#include <algorithm>
#include <iterator>

#include "tests/sim/trace.h"
#include "user/tracker/cbt_cookie.h"

namespace herald::sim {

namespace {
constexpr uint64_t kSectorsPerCell = kCellBytes / HERALD_SECTOR_BYTES;
}  // namespace

void Machine::make_ordered(Random& random) {
    ordered = true;
    // Small: most histories are to see them full.
    producer.add_disk(disk_bytes / HERALD_SECTOR_BYTES, 16u << random.below(3),
                      (128u << 10) << random.below(3));
    history = OwnHistory(std::make_shared<History>(cells));
}

tracker::Continuity Machine::continuity() const {
    if (!ordered) return pinned.continuity;
    return tracker::decode_cookie(producer.disk(0).cookie).value_or(tracker::Continuity{});
}

// False: it would be parked behind another one, and is not begun.
bool Machine::submit_ordered(Write& write, Random& random) {
    const uint64_t sector = write.first * kSectorsPerCell;
    const uint64_t end =
        std::min((write.first + write.count) * kSectorsPerCell, disk_bytes / HERALD_SECTOR_BYTES);
    if (producer.parks(0, sector, end - sector)) return false;
    const uint64_t content = write.left.begin()->second;
    const bool zeroes = content == 0 && random.chance(0.5);
    Bytes data;
    if (!zeroes) {
        data = expand(std::vector<uint64_t>(write.count, content), write.first, disk_bytes);
    }
    const auto submitted = producer.submit(0, zeroes ? HERALD_CBT_WRITE_ZEROES : HERALD_CBT_WRITE,
                                           sector, end - sector, data);
    write.driver_id = submitted.id;
    write.time_ns = submitted.time_ns;
    write.fails = random.chance(0.02);
    write.hangs = random.chance(0.02);
    const bool slotted = producer.disk(0).writes.at(submitted.id).slot.has_value();
    for (const auto& [cell, version] : write.left) {
        history->wrote(cell, version, write.time_ns,
                       slotted && !write.fails && !write.hangs ? write.time_ns : History::kNever);
    }
    return true;
}

void Machine::complete_ordered(Write& write) {
    const bool slotted = producer.disk(0).writes.at(write.driver_id).slot.has_value();
    const uint64_t ended = producer.complete(0, write.driver_id, !write.fails);
    if (write.fails || (slotted && !write.hangs)) return;
    for (uint64_t cell = write.first; cell < write.first + write.count; ++cell) {
        history->certain(cell, write.time_ns, ended);
    }
}

void Machine::begin_write(Random& random, uint64_t& version) {
    Write write;
    write.block = random.below(blocks());
    const uint64_t first = write.block * kCellsPerBlock;
    const uint64_t end = std::min<uint64_t>(first + kCellsPerBlock, cells.size());
    const uint64_t from = first + random.below(end - first);
    const uint64_t count = 1 + random.below(end - from);
    const bool zero = random.chance(0.15);
    const uint64_t content = zero ? 0 : ++version;
    for (uint64_t cell = from; cell < from + count; ++cell) write.left[cell] = content;
    write.first = from;
    write.count = count;
    const uint64_t id = next_write++;
    if (ordered) {
        if (!submit_ordered(write, random)) return;
    } else {
        pinned.submit(id, write.block);
    }
    writes[id] = std::move(write);
}

void Machine::advance(uint64_t id, Random& random) {
    Write& write = writes.at(id);
    if (write.hangs && random.chance(0.95)) {
        if (random.chance(0.1)) producer.give_up_waiting(0, write.driver_id);
        return;
    }
    if (write.fails && random.chance(0.4)) write.left.clear();
    if (!write.left.empty()) {
        const auto next =
            std::next(write.left.begin(), std::ptrdiff_t(random.below(write.left.size())));
        cells[next->first] = next->second;
        write.left.erase(next);
        return;
    }
    if (ordered) {
        complete_ordered(write);
    } else {
        pinned.complete(id);
    }
    writes.erase(id);
}

void Machine::step_writes(Random& random, uint64_t& version, bool may_begin) {
    if (ordered && random.chance(0.3)) producer.tick(0);
    const bool begin = may_begin && !frozen && writes.size() < 4 && random.chance(0.35);
    if (begin) {
        begin_write(random, version);
    } else if (!writes.empty()) {
        advance(std::next(writes.begin(), std::ptrdiff_t(random.below(writes.size())))->first,
                random);
    }
}

bool Machine::being_written(uint64_t block) const {
    return std::any_of(writes.begin(), writes.end(),
                       [&](const auto& write) { return write.second.block == block; });
}

void Machine::reboot(Random& random) {
    while (!writes.empty()) {
        const auto write = writes.begin();
        for (const auto& [cell, version] : write->second.left) {
            if (random.chance(0.5)) cells[cell] = version;
        }
        if (ordered) {
            for (uint64_t i = 0; i < write->second.count; ++i) {
                history->certain(write->second.first + i, write->second.time_ns, History::kNever);
            }
        }
        writes.erase(write);
    }
    pinned = test::Pinned(blocks());
    if (ordered) {
        const bool keeps_meta = random.chance(0.7);
        producer.power_cut(0,
                           keeps_meta ? HERALD_CBT_CAUSE_NONE : HERALD_CBT_CAUSE_META_UNREADABLE);
    }
    frozen = false;
    events_lost = false;
}

void Machine::lose_events(Random& random, uint64_t& version) {
    cells[random.below(cells.size())] = ++version;
    events_lost = true;
}

Bytes expand(std::span<const uint64_t> versions, uint64_t first, uint64_t disk_bytes) {
    Bytes bytes;
    bytes.reserve(versions.size() * kCellBytes);
    for (uint64_t i = 0; i < versions.size(); ++i) {
        const uint64_t at = (first + i) * kCellBytes;
        const uint64_t size = std::min(kCellBytes, disk_bytes - at);
        const size_t begin = bytes.size();
        bytes.resize(begin + size);
        if (versions[i] == 0) continue;
        // Doubling: a few large copies instead of thousands of small ones.
        std::memcpy(&bytes[begin], &versions[i], sizeof versions[i]);
        for (uint64_t done = sizeof versions[i]; done < size;) {
            const uint64_t more = std::min(done, size - done);
            std::memcpy(&bytes[begin + done], &bytes[begin], more);
            done += more;
        }
    }
    return bytes;
}

uint64_t collapse(ByteView cell) {
    uint64_t version;
    if (cell.size() < 2 * sizeof version) violated("a record of {} bytes", cell.size());
    std::memcpy(&version, cell.data(), sizeof version);
    if (std::memcmp(cell.data(), cell.data() + sizeof version, cell.size() - sizeof version) != 0) {
        violated("exact_at_point: a record holds bytes that no cell of the disk ever held");
    }
    return version;
}

}  // namespace herald::sim
