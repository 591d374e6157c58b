// SPDX-License-Identifier: Apache-2.0
// cbt_replica NODE FILE [--copy] [--alike] [--until STOP] [--slow MS] [--die-after SLOTS]: owns the
// disk and keeps FILE, or another disk, its replica, by the driver's protocol: slots in order;
// ranges read where a slot has no data; generations that need it scanned. What it acknowledges is
// durable.
//
// Ends when STOP exists (at once without --until), all is stored and the dirty map is empty.
// --copy: begins with the whole disk, and closes the gap with it. --alike: closes the gap, as the
// two are known to be alike. --die-after: ends between draining and releasing, once that many slots
// were drained. Prints what it read from the disk.
#include <linux/fs.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "cbt_reader.hpp"

namespace {

constexpr std::uint64_t kSector = HERALD_CBT_SECTOR_BYTES;
constexpr std::uint64_t kBlock = HERALD_CBT_BLOCK_BYTES;
// Nothing here takes longer; a reader that does not come to an end is a finding.
constexpr auto kNoProgressMax = std::chrono::seconds(120);

using U64 = unsigned long long;

class Replica {
  public:
    Replica(const char* node, const char* path)
        : reader_(node),
          disk_(open(node, O_RDONLY | O_DIRECT | O_CLOEXEC)),
          file_(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
        void* buffer = nullptr;
        if (disk_ < 0 || file_ < 0 || posix_memalign(&buffer, 4096, kBlock) != 0)
            fail("%s, %s: %s", node, path, std::strerror(errno));
        buffer_ = static_cast<std::uint8_t*>(buffer);
    }

    void close_gap() { flags_ = HERALD_CBT_ACK_GAP_CLOSED; }

    void copy() {
        read(0, reader_.header().sectors);
        close_gap();
        copied_bytes = read_bytes;
        read_bytes = 0;
    }

    // Slots that were there; they are stored when this returns, but neither released nor
    // acknowledged.
    std::uint64_t drain() {
        return reader_.drain(
            [this](const herald_cbt_slot_abi& slot, std::uint64_t, const std::uint8_t* data) {
                // What hangs is in a generation that needs a scan.
                if (slot.state == HERALD_CBT_UNRESOLVED) return;
                switch (slot.kind) {
                    case HERALD_CBT_WRITE:
                        if (data != nullptr && slot.state == HERALD_CBT_COMMITTED) {
                            store(slot.sector, data, slot.payload_bytes);
                            return;
                        }
                        [[fallthrough]];
                    case HERALD_CBT_WRITE_ZEROES:
                    case HERALD_CBT_DISCARD:
                    case HERALD_CBT_SECURE_ERASE:
                    case HERALD_CBT_REREAD:
                        ++reread_slots;
                        read(slot.sector, slot.sectors);
                        return;
                    case HERALD_CBT_MODE:
                        ++modes;
                        return;
                    default:
                        return;
                }
            });
    }

    // Tells the driver; scans what needs it. False: there is nothing left to do.
    bool settle() {
        make_durable();
        reader_.release();
        herald_cbt_ack_abi ack = reader_.acknowledge(0, flags_);
        flags_ = 0;
        constexpr std::uint32_t kScan =
            HERALD_CBT_GENERATION_EXISTS | HERALD_CBT_GENERATION_NEEDS_SCAN;
        if ((ack.sealed_flags & kScan) == kScan &&
            (ack.sealed_flags & HERALD_CBT_GENERATION_CLEARING) == 0 &&
            ack.sealed_generation != scanned_) {
            for (std::uint64_t block : reader_.dirty(HERALD_CBT_BITMAP_SEALED)) {
                const std::uint64_t first = block * (kBlock / kSector);
                read(first,
                     std::min<std::uint64_t>(kBlock / kSector, reader_.header().sectors - first));
                ++scanned_blocks;
                scanned_block_max = std::max(scanned_block_max, block);
            }
            scanned_ = ack.sealed_generation;
            make_durable();
            ack = reader_.acknowledge(scanned_);
        }
        if (ack.sealed_generation == 0) reader_.seal();
        return ack.sealed_generation != 0 || !reader_.dirty(HERALD_CBT_BITMAP_BOTH).empty() ||
               reader_.next() != reader_.head();
    }

    void wait() const { reader_.wait(10); }

    std::uint64_t copied_bytes = 0, read_bytes = 0, reread_slots = 0, scanned_blocks = 0,
                  scanned_block_max = 0, modes = 0;

  private:
    void store(std::uint64_t sector, const std::uint8_t* data, std::uint64_t bytes) {
        if (pwrite(file_, data, bytes, static_cast<off_t>(sector * kSector)) !=
            static_cast<ssize_t>(bytes))
            fail("replica: %s", std::strerror(errno));
        is_durable_ = false;
    }

    // Most of what is scanned is alike, and a replica on a disk would grow by it.
    bool is_stored(std::uint64_t sector, std::uint64_t bytes) {
        return pread(file_, stored_.data(), bytes, static_cast<off_t>(sector * kSector)) ==
                   static_cast<ssize_t>(bytes) &&
               std::memcmp(stored_.data(), buffer_, bytes) == 0;
    }

    // Before it is acknowledged: a power cut takes back what was not flushed.
    void make_durable() {
        if (!is_durable_ && fdatasync(file_) != 0) fail("replica: %s", std::strerror(errno));
        is_durable_ = true;
    }

    // The disk ends before `end` by now: what was beyond is no more. Its header says so a moment
    // after reads fail.
    [[nodiscard]] bool has_shrunk_to(std::uint64_t end) const {
        const int error = errno;
        for (int number = 0; number < 100 && reader_.header().sectors >= end; ++number)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        errno = error;
        return reader_.header().sectors < end;
    }

    void read(std::uint64_t sector, std::uint64_t sectors) {
        while (sectors != 0) {
            const std::uint64_t some = std::min(sectors, kBlock / kSector);
            if (pread(disk_, buffer_, some * kSector, static_cast<off_t>(sector * kSector)) !=
                static_cast<ssize_t>(some * kSector)) {
                if (has_shrunk_to(sector + some)) return;
                fail("read %llu sectors at %llu: %s", U64{some}, U64{sector}, std::strerror(errno));
            }
            if (!is_stored(sector, some * kSector)) store(sector, buffer_, some * kSector);
            read_bytes += some * kSector;
            sector += some;
            sectors -= some;
        }
    }

    Reader reader_;
    int disk_;
    int file_;
    std::uint8_t* buffer_ = nullptr;
    std::vector<std::uint8_t> stored_ = std::vector<std::uint8_t>(kBlock);
    std::uint64_t scanned_ = 0;
    std::uint32_t flags_ = 0;
    bool is_durable_ = true;
};

}  // namespace

int main(int count, char** words) {
    if (count < 3)
        fail(
            "usage: cbt_replica NODE FILE [--copy] [--alike] [--until STOP] [--slow MS] "
            "[--die-after SLOTS]");
    std::string stop;
    std::uint64_t slow_ms = 0, die_after = 0;
    bool copy = false, alike = false;
    for (int index = 3; index < count; ++index) {
        const std::string word = words[index];
        const char* value = index + 1 < count ? words[index + 1] : "";
        if (word == "--copy")
            copy = true;
        else if (word == "--alike")
            alike = true;
        else if (word == "--until")
            stop = value, ++index;
        else if (word == "--slow")
            slow_ms = std::strtoull(value, nullptr, 10), ++index;
        else if (word == "--die-after")
            die_after = std::strtoull(value, nullptr, 10), ++index;
        else
            fail("unknown option %s", words[index]);
    }
    Replica replica(words[1], words[2]);
    if (copy) replica.copy();
    if (alike) replica.close_gap();
    std::uint64_t slots = 0;
    auto progress = std::chrono::steady_clock::now();
    for (;;) {
        // Before the drain: what was written before it is then drained.
        const bool ending = stop.empty() || access(stop.c_str(), F_OK) == 0;
        const std::uint64_t some = replica.drain();
        slots += some;
        if (die_after != 0 && slots >= die_after) {
            std::printf(
                "died: %llu slots drained, the last %llu neither released nor acknowledged\n",
                U64{slots}, U64{some});
            std::fflush(stdout);
            _exit(0);
        }
        const bool more = replica.settle();
        if (ending && !more) break;
        const auto now = std::chrono::steady_clock::now();
        if (some != 0 || !ending) progress = now;
        if (now - progress > kNoProgressMax) fail("does not come to an end");
        if (slow_ms != 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(slow_ms));
        else if (some == 0)
            replica.wait();
    }
    std::printf(
        "slots %llu modes %llu reread_slots %llu scanned_blocks %llu scanned_block_max %llu "
        "read_bytes %llu copied_bytes %llu\n",
        U64{slots}, U64{replica.modes}, U64{replica.reread_slots}, U64{replica.scanned_blocks},
        U64{replica.scanned_block_max}, U64{replica.read_bytes}, U64{replica.copied_bytes});
    return 0;
}
