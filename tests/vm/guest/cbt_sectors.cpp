// SPDX-License-Identifier: Apache-2.0
// cbt_sectors SEED WRITES THREADS BOUNDARIES NODE NODE...: every boundary of the driver's slots is
// an image that the disks could have had at a power cut, over all of them at once. Fresh disks of
// zeroes, please.
//
// At random boundaries of the slots of all disks, in the order of their times: no sector is torn or
// not of its place, and none is older than a write that had completed before one that the image
// holds was submitted. Tags land at one time on each disk, between what had completed before and
// what was submitted after; a cut's heads cover its time. At the end the replica is the disk, byte
// for byte.
#include <linux/fs.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "sectors.hpp"

namespace {

constexpr std::uint64_t kSectors = 8192;  // of each disk, from its start

using U64 = unsigned long long;

struct Piece {  // one slot
    std::uint64_t time_ns;
    std::uint64_t number;
    std::size_t disk;
    std::uint64_t sector;
    std::vector<std::uint32_t> writes;  // of each of its sectors, plus 1
};

struct Tag {
    std::uint64_t time_ns, before, after;
};

struct Cut {
    std::uint64_t time_ns;
    std::vector<std::uint64_t> heads;
};

struct Disk {
    explicit Disk(const char* path) : node(path), reader(path), replica(kSectors * kSectorBytes) {}
    const char* node;
    Reader reader;
    std::vector<std::uint8_t> replica;
    std::vector<Piece> pieces;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> tags;  // number, time
    std::uint64_t last_time = 0;
};

void take(Disk& disk, std::size_t index, std::size_t writes, const herald_cbt_slot_abi& slot,
          std::uint64_t number, const std::uint8_t* data) {
    if (slot.time_ns <= disk.last_time)
        fail("slot %llu: its time is not after the one before", U64{number});
    disk.last_time = slot.time_ns;
    if (slot.kind == HERALD_CBT_TAG) {
        std::uint64_t id = 0;
        std::memcpy(&id, slot.id, sizeof(id));
        disk.tags.emplace_back(id, slot.time_ns);
        return;
    }
    if (slot.kind == HERALD_CBT_MODE && slot.argument != HERALD_CBT_MODE_ORDERED)
        fail("slot %llu: mode %llu: the rings were too small for this load", U64{number},
             U64{slot.argument});
    if (slot.kind != HERALD_CBT_WRITE) return;
    if (slot.state != HERALD_CBT_COMMITTED || data == nullptr ||
        slot.payload_bytes != slot.sectors * kSectorBytes || slot.sector + slot.sectors > kSectors)
        fail("slot %llu: state %u, %u sectors at %llu, %u bytes", U64{number}, slot.state,
             slot.sectors, U64{slot.sector}, slot.payload_bytes);
    Piece piece{slot.time_ns, number, index, slot.sector, {}};
    for (std::uint32_t sector = 0; sector < slot.sectors; ++sector) {
        const std::uint64_t write = write_of(data + std::size_t{sector} * kSectorBytes, index,
                                             slot.sector + sector, writes, "in the ring");
        if (write == 0) fail("slot %llu: a sector of zeroes", U64{number});
        piece.writes.push_back(static_cast<std::uint32_t>(write));
    }
    std::memcpy(disk.replica.data() + slot.sector * kSectorBytes, data, slot.payload_bytes);
    disk.pieces.push_back(std::move(piece));
}

// For one sector: of the writes that had completed before a moment, the latest submission.
class Obligations {
  public:
    void add(const Write& write) { writes_.emplace_back(write.completed, write.submitted); }
    void sort() {
        std::sort(writes_.begin(), writes_.end());
        for (std::size_t index = 1; index < writes_.size(); ++index)
            writes_[index].second = std::max(writes_[index].second, writes_[index - 1].second);
    }
    [[nodiscard]] std::uint64_t latest(std::uint64_t moment) const {
        const auto after = std::lower_bound(writes_.begin(), writes_.end(),
                                            std::pair<std::uint64_t, std::uint64_t>{moment, 0});
        return after == writes_.begin() ? 0 : std::prev(after)->second;
    }

  private:
    std::vector<std::pair<std::uint64_t, std::uint64_t>> writes_;
};

void check_boundaries(const std::vector<std::unique_ptr<Disk>>& disks,
                      const std::vector<Write>& history, std::size_t boundaries,
                      std::mt19937_64& random) {
    std::vector<const Piece*> pieces;
    for (const auto& disk : disks)
        for (const Piece& piece : disk->pieces) pieces.push_back(&piece);
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece* a, const Piece* b) { return a->time_ns < b->time_ns; });
    for (std::size_t index = 1; index < pieces.size(); ++index)
        if (pieces[index]->time_ns == pieces[index - 1]->time_ns)
            fail("two slots of time %llu", U64{pieces[index]->time_ns});
    std::vector<std::vector<Obligations>> due(disks.size(), std::vector<Obligations>(kSectors));
    for (const Write& write : history)
        for (std::uint32_t index = 0; index < write.sectors; ++index)
            due[write.disk][write.sector + index].add(write);
    for (auto& disk : due)
        for (Obligations& sector : disk) sector.sort();

    // The last one, and others without repetition.
    std::vector<bool> chosen(pieces.size(), false);
    std::fill_n(chosen.begin(), std::min(boundaries, pieces.size()), true);
    std::shuffle(chosen.begin(), chosen.end(), random);
    chosen.back() = true;
    std::vector<std::vector<std::uint32_t>> image(disks.size(),
                                                  std::vector<std::uint32_t>(kSectors, 0));
    std::uint64_t latest = 0;  // submission of what the image holds
    std::size_t checked = 0;
    for (std::size_t index = 0; index < pieces.size(); ++index) {
        const Piece& piece = *pieces[index];
        for (std::size_t sector = 0; sector < piece.writes.size(); ++sector) {
            image[piece.disk][piece.sector + sector] = piece.writes[sector];
            latest = std::max(latest, history[piece.writes[sector] - 1].submitted);
        }
        if (!chosen[index]) continue;
        ++checked;
        for (std::size_t disk = 0; disk < disks.size(); ++disk)
            for (std::size_t sector = 0; sector < kSectors; ++sector) {
                const std::uint32_t write = image[disk][sector];
                const std::uint64_t completed = write == 0 ? 0 : history[write - 1].completed;
                if (completed < due[disk][sector].latest(latest))
                    fail(
                        "boundary %zu of %zu: disk %zu, sector %zu misses a write that had "
                        "completed before "
                        "one that the image holds was submitted",
                        index, pieces.size(), disk, sector);
            }
    }
    std::printf("%zu slots of %zu disks: each of %zu boundaries is an image of a power cut\n",
                pieces.size(), disks.size(), checked);
}

void check_tags(const std::vector<std::unique_ptr<Disk>>& disks, const std::vector<Write>& history,
                const std::map<std::uint64_t, Tag>& tags) {
    for (const auto& disk : disks) {
        if (disk->tags.size() != tags.size())
            fail("%s: %zu tags of %zu", disk->node, disk->tags.size(), tags.size());
        for (const auto& [number, time] : disk->tags) {
            const auto tag = tags.find(number);
            if (tag == tags.end() || tag->second.time_ns != time)
                fail("%s: tag %llu is not at its time", disk->node, U64{number});
        }
        for (const Piece& piece : disk->pieces)
            for (const auto& [number, tag] : tags) {
                const bool before = piece.time_ns < tag.time_ns;
                const Write& write = history[piece.writes[0] - 1];
                if ((write.completed < tag.before && !before) ||
                    (write.submitted > tag.after && before))
                    fail("%s: slot %llu is on the wrong side of tag %llu", disk->node,
                         U64{piece.number}, U64{number});
            }
    }
    std::printf("%zu tags: at one time on each disk, each on its side of every write\n",
                tags.size());
}

void check_cuts(const std::vector<std::unique_ptr<Disk>>& disks, const std::vector<Cut>& cuts) {
    for (const Cut& cut : cuts)
        for (std::size_t disk = 0; disk < disks.size(); ++disk)
            for (const Piece& piece : disks[disk]->pieces)
                if (piece.time_ns < cut.time_ns && piece.number >= cut.heads[disk])
                    fail("%s: slot %llu is before a cut that does not cover it", disks[disk]->node,
                         U64{piece.number});
    std::printf("%zu cuts: their heads cover their time\n", cuts.size());
}

void check_replica(const Disk& disk, std::size_t index, std::size_t writes) {
    const int file = open(disk.node, O_RDONLY | O_DIRECT | O_CLOEXEC);
    void* bytes = nullptr;
    // A page of the block device from before would be compared otherwise.
    if (file < 0 || ioctl(file, BLKFLSBUF, 0) != 0 ||
        posix_memalign(&bytes, 4096, kSectors * kSectorBytes) != 0 ||
        pread(file, bytes, kSectors * kSectorBytes, 0) !=
            static_cast<ssize_t>(kSectors * kSectorBytes))
        fail("%s: %s", disk.node, std::strerror(errno));
    const auto* on_disk = static_cast<const std::uint8_t*>(bytes);
    for (std::uint64_t sector = 0; sector < kSectors; ++sector) {
        write_of(on_disk + sector * kSectorBytes, index, sector, writes, "on the disk");
        if (std::memcmp(on_disk + sector * kSectorBytes,
                        disk.replica.data() + sector * kSectorBytes, kSectorBytes) != 0)
            fail("%s: sector %llu differs between disk and replica at the end", disk.node,
                 U64{sector});
    }
    std::free(bytes);
    close(file);
}

void tag_and_cut(int driver, Load& load, const std::vector<std::unique_ptr<Disk>>& disks,
                 std::map<std::uint64_t, Tag>& tags, std::vector<Cut>& cuts) {
    herald_cbt_tag_abi tag{};
    herald_cbt_cut_abi cut{};
    tag.disks = cut.disks = static_cast<std::uint32_t>(disks.size());
    for (std::size_t index = 0; index < disks.size(); ++index)
        tag.answers[index].disk = cut.answers[index].disk = disks[index]->reader.disk();
    const std::uint64_t number = tags.size() + 1;
    std::memcpy(tag.id, &number, sizeof(number));
    const std::uint64_t before = load.tick();
    if (call(driver, HERALD_CBT_TAG_DISKS, tag) != 0) fail("tag: %s", std::strerror(errno));
    tags[number] = {tag.time_ns, before, load.tick()};
    if (call(driver, HERALD_CBT_CUT, cut) != 0) fail("cut: %s", std::strerror(errno));
    cuts.push_back({cut.time_ns, {}});
    for (std::size_t index = 0; index < disks.size(); ++index) {
        if (tag.answers[index].result != HERALD_CBT_LANDED)
            fail("tag: disk %zu: result %u, cause %u", index, tag.answers[index].result,
                 tag.answers[index].cause);
        cuts.back().heads.push_back(cut.answers[index].slot);
    }
}

}  // namespace

int main(int count, char** words) {
    if (count < 6) {
        std::fputs("usage: cbt_sectors SEED WRITES THREADS BOUNDARIES NODE...\n", stderr);
        return 2;
    }
    const std::uint64_t seed = std::strtoull(words[1], nullptr, 10);
    const std::size_t writes = std::strtoull(words[2], nullptr, 10);
    const auto threads = static_cast<unsigned>(std::strtoul(words[3], nullptr, 10));
    std::mt19937_64 random(seed);
    std::vector<const char*> nodes(words + 5, words + count);
    std::vector<std::unique_ptr<Disk>> disks;
    for (const char* node : nodes) disks.push_back(std::make_unique<Disk>(node));

    Load load(nodes, kSectors, writes, seed);
    std::atomic<bool> done{false};
    std::vector<std::thread> readers;
    for (std::size_t index = 0; index < disks.size(); ++index)
        readers.emplace_back([&, index] {
            Disk& disk = *disks[index];
            for (;;) {
                // Once more after the load's end: what it left.
                const bool last = done.load();
                const std::uint64_t some =
                    disk.reader.drain([&](const herald_cbt_slot_abi& slot, std::uint64_t number,
                                          const std::uint8_t* data) {
                        take(disk, index, writes, slot, number, data);
                    });
                disk.reader.release();
                disk.reader.acknowledge();
                if (some == 0 && last && disk.reader.next() == disk.reader.head()) return;
                if (some == 0) disk.reader.wait(20);
            }
        });
    std::map<std::uint64_t, Tag> tags;
    std::vector<Cut> cuts;
    const int driver = open_driver();
    std::thread control([&] {
        while (!done.load()) {
            tag_and_cut(driver, load, disks, tags, cuts);
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
    });
    load.start(threads);
    load.join();
    done.store(true);
    control.join();
    for (std::thread& reader : readers) reader.join();

    std::uint64_t parked = 0;
    for (std::size_t index = 0; index < disks.size(); ++index) {
        check_replica(*disks[index], index, writes);
        parked += disks[index]->reader.stats().parked_overlap;
    }
    check_boundaries(disks, load.history(), std::strtoull(words[4], nullptr, 10), random);
    check_tags(disks, load.history(), tags);
    check_cuts(disks, cuts);
    std::printf("%zu writes of %u threads, %llu waited for one that they overlap\n", writes,
                threads, U64{parked});
    if (parked == 0) fail("no write overlapped another in flight: nothing was shown of that rule");
    return 0;
}
