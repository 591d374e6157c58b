// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/machine.h"

#include <algorithm>
#include <iterator>

#include "tests/sim/trace.h"

namespace herald::sim {

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
    const uint64_t id = next_write++;
    pinned.submit(id, write.block);
    writes[id] = std::move(write);
}

void Machine::advance(uint64_t id, Random& random) {
    Write& write = writes.at(id);
    if (!write.left.empty()) {
        const auto next =
            std::next(write.left.begin(), std::ptrdiff_t(random.below(write.left.size())));
        cells[next->first] = next->second;
        write.left.erase(next);
        return;
    }
    pinned.complete(id);
    writes.erase(id);
}

void Machine::step_writes(Random& random, uint64_t& version, bool may_begin) {
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
        writes.erase(write);
    }
    pinned = test::Pinned(blocks());
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
