// SPDX-License-Identifier: Apache-2.0
// cbt_sectors SEED WRITES THREADS BOUNDARIES SLOW_MS NODE NODE...: every boundary of the driver's
// slots is an image that the disks could have had at a power cut, over all of them at once. Fresh
// disks of zeroes, please.
//
// At random boundaries of the slots of all disks, in the order of their times: no sector is torn or
// not of its place, and none is older than a write that had completed before one that the image
// holds was submitted. Tags land at one time on each disk, between what had completed before and
// what was submitted after; a cut's heads cover its time. At the end the replica is the disk, byte
// for byte.
//
// SLOW_MS above 0: the readers pause now and then, so that small rings overflow, that long at most.
// From a slot without data, or a stretch in mode map, until all that was read in their place is
// behind, no boundary of that disk is an image, and none is checked; all others are.
#include <linux/fs.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "sectors.hpp"

namespace {

constexpr std::uint64_t kSectors = 8192;  // of each disk, from its start

using U64 = unsigned long long;

struct Piece {  // one slot, or what was read in the place of one
    std::uint64_t time_ns;
    std::uint64_t number;
    std::size_t disk;
    std::uint64_t sector;
    bool read;
    std::vector<std::uint32_t> writes;  // of each of its sectors, plus 1; 0: not known
};

// One disk, its reader and all that this read.
class Disk {
  public:
    Disk(const char* path, std::size_t index, std::size_t writes)
        : node(path),
          reader(path),
          replica(kSectors * kSectorBytes),
          index_(index),
          writes_(writes),
          file_(open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)) {
        void* buffer = nullptr;
        if (file_ < 0 || posix_memalign(&buffer, 4096, kSectors * kSectorBytes) != 0)
            fail("%s: %s", path, std::strerror(errno));
        buffer_ = static_cast<std::uint8_t*>(buffer);
    }

    // Until `done` and nothing is left.
    void follow(const std::atomic<bool>& done, unsigned slow_ms, std::uint64_t seed) {
        std::mt19937_64 random(seed);
        for (;;) {
            // Once more after the load's end: what it left.
            const bool last = done.load();
            const std::uint64_t some =
                reader.drain([this](const herald_cbt_slot_abi& slot, std::uint64_t number,
                                    const std::uint8_t* data) { take(slot, number, data); });
            const bool more = settle();
            if (last && some == 0 && !more) return;
            if (slow_ms != 0 && !last && random() % 32 == 0)
                pause(done, slow_ms);
            else if (some == 0)
                reader.wait(20);
        }
    }

    // Until the rings have overflowed.
    void pause(const std::atomic<bool>& done, unsigned slow_ms) const {
        for (unsigned waited = 0; waited < slow_ms && !done.load(); waited += 5) {
            if (__atomic_load_n(&reader.header().mode, __ATOMIC_RELAXED) != HERALD_CBT_MODE_ORDERED)
                return;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }

    // Is the image at this time one of a power cut?
    [[nodiscard]] bool is_exact(std::uint64_t time) const {
        for (const auto& [from, until] : inexact_)
            if (time >= from && time < until) return false;
        return true;
    }

    void check_replica() {
        // A page of the block device from before would be compared otherwise.
        if (ioctl(file_, BLKFLSBUF, 0) != 0) fail("%s: %s", node, std::strerror(errno));
        read_disk(0, kSectors);
        for (std::uint64_t sector = 0; sector < kSectors; ++sector) {
            write_of(buffer_ + sector * kSectorBytes, index_, sector, writes_, "on the disk");
            if (std::memcmp(buffer_ + sector * kSectorBytes, replica.data() + sector * kSectorBytes,
                            kSectorBytes) != 0)
                fail("%s: sector %llu differs between disk and replica at the end", node,
                     U64{sector});
        }
    }

    const char* node;
    Reader reader;
    std::vector<std::uint8_t> replica;
    std::vector<Piece> pieces;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> tags;  // number, time

  private:
    void take(const herald_cbt_slot_abi& slot, std::uint64_t number, const std::uint8_t* data) {
        if (slot.time_ns <= last_time_)
            fail("slot %llu: its time is not after the one before", U64{number});
        // Mode map has no slots: the climb's is the first after those that were lost.
        if (slot.kind == HERALD_CBT_MODE && slot.sectors == HERALD_CBT_MODE_MAP)
            begin_inexact(last_time_ + 1);
        last_time_ = slot.time_ns;
        if (slot.kind == HERALD_CBT_TAG) {
            std::uint64_t id = 0;
            std::memcpy(&id, slot.id, sizeof(id));
            tags.emplace_back(id, slot.time_ns);
        }
        if (slot.kind == HERALD_CBT_WRITE) {
            if (slot.state != HERALD_CBT_COMMITTED || slot.sector + slot.sectors > kSectors ||
                (data != nullptr && slot.payload_bytes != slot.sectors * kSectorBytes))
                fail("slot %llu: state %u, %u sectors at %llu, %u bytes", U64{number}, slot.state,
                     slot.sectors, U64{slot.sector}, slot.payload_bytes);
            if (data == nullptr)
                begin_inexact(slot.time_ns);
            else
                add({slot.time_ns, number, index_, slot.sector, false, {}}, slot.sectors, data);
            if (data == nullptr) read_in_place(slot.time_ns, number, slot.sector, slot.sectors);
        }
        if (inexact_now_ && resume_ != 0 && number >= resume_) {
            inexact_.back().second = slot.time_ns;
            inexact_now_ = false;
        }
    }

    void add(Piece piece, std::uint64_t sectors, const std::uint8_t* data) {
        for (std::uint64_t sector = 0; sector < sectors; ++sector) {
            const std::uint8_t* bytes = data + sector * kSectorBytes;
            std::uint64_t write = 0;
            if (!piece.read) {
                write = write_of(bytes, index_, piece.sector + sector, writes_, "in the ring");
                if (write == 0) fail("slot %llu: a sector of zeroes", U64{piece.number});
            } else if (SectorText text; std::memcpy(&text, bytes, sizeof(text)),
                                        text.checksum == checksum_of(text)) {
                // Read while it was written it may be torn: then a later slot has it.
                write = text.write;
            }
            piece.writes.push_back(static_cast<std::uint32_t>(write));
        }
        std::memcpy(replica.data() + piece.sector * kSectorBytes, data, sectors * kSectorBytes);
        pieces.push_back(std::move(piece));
    }

    void read_disk(std::uint64_t sector, std::uint64_t sectors) {
        if (pread(file_, buffer_, sectors * kSectorBytes,
                  static_cast<off_t>(sector * kSectorBytes)) !=
            static_cast<ssize_t>(sectors * kSectorBytes))
            fail("%s: %s", node, std::strerror(errno));
    }

    void read_in_place(std::uint64_t time, std::uint64_t number, std::uint64_t sector,
                       std::uint64_t sectors) {
        read_disk(sector, sectors);
        add({time, number, index_, sector, true, {}}, sectors, buffer_);
    }

    void begin_inexact(std::uint64_t time) {
        if (!inexact_now_) inexact_.emplace_back(time, ~std::uint64_t{0});
        inexact_now_ = true;
        resume_ = 0;
    }

    // Acknowledges, scans what needs it, and says from which slot on images are exact again.
    bool settle() {
        reader.release();
        herald_cbt_ack_abi ack = reader.acknowledge();
        constexpr std::uint32_t kScan =
            HERALD_CBT_GENERATION_EXISTS | HERALD_CBT_GENERATION_NEEDS_SCAN;
        if ((ack.sealed_flags & kScan) == kScan && ack.sealed_generation != scanned_) {
            for (std::uint64_t block : reader.dirty(HERALD_CBT_BITMAP_SEALED)) {
                constexpr std::uint64_t kBlockSectors = HERALD_CBT_BLOCK_BYTES / kSectorBytes;
                if (block * kBlockSectors >= kSectors)
                    fail("%s: block %llu is dirty, and was not written", node, U64{block});
                read_in_place(last_time_, reader.next() - 1, block * kBlockSectors, kBlockSectors);
            }
            scanned_ = ack.sealed_generation;
            ack = reader.acknowledge(scanned_);
        }
        const bool sealed_unscanned =
            (ack.sealed_flags & kScan) == kScan && ack.sealed_generation != scanned_;
        const bool unscanned =
            sealed_unscanned || (ack.current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) != 0;
        if (unscanned && ack.sealed_generation == 0) reader.seal();
        if (inexact_now_ && resume_ == 0 && !unscanned &&
            reader.header().mode == HERALD_CBT_MODE_ORDERED)
            resume_ = std::max<std::uint64_t>(reader.head(), 1);
        return unscanned || reader.next() != reader.head();
    }

    std::size_t index_;
    std::size_t writes_;
    int file_;
    std::uint8_t* buffer_ = nullptr;
    std::uint64_t last_time_ = 0;
    std::uint64_t scanned_ = 0;
    // Times from which, until which no image is exact; the last one is open while inexact_now_.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> inexact_;
    bool inexact_now_ = false;
    std::uint64_t resume_ = 0;  // slot, once known
};

struct Tag {
    std::uint64_t time_ns, before, after;
};

struct Cut {
    std::uint64_t time_ns;
    std::vector<std::uint64_t> heads;
};

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
    std::stable_sort(pieces.begin(), pieces.end(),
                     [](const Piece* a, const Piece* b) { return a->time_ns < b->time_ns; });
    for (std::size_t index = 1; index < pieces.size(); ++index)
        if (pieces[index]->time_ns == pieces[index - 1]->time_ns && !pieces[index]->read &&
            !pieces[index - 1]->read)
            fail("two slots of time %llu", U64{pieces[index]->time_ns});
    std::vector<std::vector<Obligations>> due(disks.size(), std::vector<Obligations>(kSectors));
    for (const Write& write : history)
        for (std::uint32_t index = 0; index < write.sectors; ++index)
            due[write.disk][write.sector + index].add(write);
    for (auto& disk : due)
        for (Obligations& sector : disk) sector.sort();

    // Without repetition, of those that are exact on every disk.
    std::vector<std::size_t> exact;
    for (std::size_t index = 0; index < pieces.size(); ++index)
        if (std::all_of(disks.begin(), disks.end(),
                        [&](const auto& disk) { return disk->is_exact(pieces[index]->time_ns); }))
            exact.push_back(index);
    std::shuffle(exact.begin(), exact.end(), random);
    std::vector<bool> chosen(pieces.size(), false);
    for (std::size_t index = 0; index < std::min(boundaries, exact.size()); ++index)
        chosen[exact[index]] = true;
    std::vector<std::vector<std::uint32_t>> image(disks.size(),
                                                  std::vector<std::uint32_t>(kSectors, 0));
    std::uint64_t latest = 0;  // submission of what the image holds
    std::size_t checked = 0;
    for (std::size_t index = 0; index < pieces.size(); ++index) {
        const Piece& piece = *pieces[index];
        for (std::size_t sector = 0; sector < piece.writes.size(); ++sector) {
            image[piece.disk][piece.sector + sector] = piece.writes[sector];
            if (piece.writes[sector] != 0)
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
    std::printf(
        "%zu slots of %zu disks, %zu boundaries between ordered ones: each of %zu is an image of a "
        "power cut\n",
        pieces.size(), disks.size(), exact.size(), checked);
    if (checked < 50) fail("too few boundaries to say anything");
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
                if (piece.read) continue;
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

void tag_and_cut(int driver, Load& load, const std::vector<std::unique_ptr<Disk>>& disks,
                 std::map<std::uint64_t, Tag>& tags, std::vector<Cut>& cuts, bool may_refuse) {
    herald_cbt_tag_abi tag{};
    herald_cbt_cut_abi cut{};
    tag.flags = HERALD_CBT_TAG_ALL;
    tag.disks = cut.disks = static_cast<std::uint32_t>(disks.size());
    for (std::size_t index = 0; index < disks.size(); ++index)
        tag.answers[index].disk = cut.answers[index].disk = disks[index]->reader.disk();
    const std::uint64_t number = cuts.size() + 1;
    std::memcpy(tag.id, &number, sizeof(number));
    const std::uint64_t before = load.tick();
    if (call(driver, HERALD_CBT_TAG_DISKS, tag) != 0) fail("tag: %s", std::strerror(errno));
    const std::uint64_t after = load.tick();
    bool landed = true;
    if (call(driver, HERALD_CBT_CUT, cut) != 0) fail("cut: %s", std::strerror(errno));
    cuts.push_back({cut.time_ns, {}});
    for (std::size_t index = 0; index < disks.size(); ++index) {
        if (tag.answers[index].result != HERALD_CBT_LANDED && !may_refuse)
            fail("tag: disk %zu: result %u, cause %u", index, tag.answers[index].result,
                 tag.answers[index].cause);
        landed = landed && tag.answers[index].result == HERALD_CBT_LANDED;
        cuts.back().heads.push_back(cut.answers[index].slot);
    }
    if (landed) tags[number] = {tag.time_ns, before, after};
}

}  // namespace

int main(int count, char** words) {
    if (count < 7) {
        std::fputs("usage: cbt_sectors SEED WRITES THREADS BOUNDARIES SLOW_MS NODE...\n", stderr);
        return 2;
    }
    const std::uint64_t seed = std::strtoull(words[1], nullptr, 10);
    const std::size_t writes = std::strtoull(words[2], nullptr, 10);
    const auto threads = static_cast<unsigned>(std::strtoul(words[3], nullptr, 10));
    const auto slow_ms = static_cast<unsigned>(std::strtoul(words[5], nullptr, 10));
    std::mt19937_64 random(seed);
    std::vector<const char*> nodes(words + 6, words + count);
    std::vector<std::unique_ptr<Disk>> disks;
    for (const char* node : nodes) {
        disks.push_back(std::make_unique<Disk>(node, disks.size(), writes));
        // All of both is zero. While a gap is open no tag lands.
        disks.back()->reader.acknowledge(0, HERALD_CBT_ACK_GAP_CLOSED);
    }

    Load load(nodes, kSectors, writes, seed);
    std::atomic<bool> done{false};
    std::vector<std::thread> readers;
    for (const auto& disk : disks)
        readers.emplace_back([&done, slow_ms, own = disk.get(), number = seed + readers.size()] {
            own->follow(done, slow_ms, number);
        });
    std::map<std::uint64_t, Tag> tags;
    std::vector<Cut> cuts;
    const int driver = open_driver();
    std::thread control([&] {
        while (!done.load()) {
            tag_and_cut(driver, load, disks, tags, cuts, slow_ms != 0);
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
    });
    load.start(threads);
    load.join();
    done.store(true);
    control.join();
    for (std::thread& reader : readers) reader.join();

    std::uint64_t parked = 0, sank = 0;
    for (const auto& disk : disks) {
        disk->check_replica();
        const herald_cbt_stats_abi stats = disk->reader.stats();
        parked += stats.parked_overlap;
        sank += stats.sank[0] + stats.sank[1];
    }
    check_boundaries(disks, load.history(), std::strtoull(words[4], nullptr, 10), random);
    check_tags(disks, load.history(), tags);
    check_cuts(disks, cuts);
    std::printf(
        "%zu writes of %u threads, %llu waited for one that they overlap; modes sank %llu times\n",
        writes, threads, U64{parked}, U64{sank});
    if (parked == 0) fail("no write overlapped another in flight: nothing was shown of that rule");
    if ((sank != 0) != (slow_ms != 0)) fail("the rings were too small for this load, or too large");
    return 0;
}
