// SPDX-License-Identifier: Apache-2.0
// Sectors that say what they are, {checksum, write, disk, own address}, and a load that writes
// them: random writes by several threads at once, many of them over each other, with a history of
// when each was submitted and when it had completed. Promise: a write that completed before another
// was submitted has completed < submitted of that one.
#ifndef HERALD_TESTS_VM_GUEST_SECTORS_HPP
#define HERALD_TESTS_VM_GUEST_SECTORS_HPP

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "cbt_reader.hpp"

constexpr std::uint32_t kSectorBytes = HERALD_CBT_SECTOR_BYTES;
constexpr std::uint32_t kWriteSectorsMax = 64;
// Half of the writes go here, so that several of those in flight overlap.
constexpr std::uint64_t kHotSectors = 96;

struct SectorText {
    std::uint64_t checksum;
    std::uint64_t write;  // number in the history, plus 1
    std::uint64_t address;
    std::uint64_t disk;
    std::array<std::uint64_t, 60> fill;
};
static_assert(sizeof(SectorText) == kSectorBytes);

inline std::uint64_t checksum_of(const SectorText& text) {
    // FNV-1a's constants, over words.
    std::uint64_t sum = 14695981039346656037u;
    const auto add = [&sum](std::uint64_t word) {
        sum = (sum ^ word) * 1099511628211u;
        sum ^= sum >> 29;
    };
    add(text.write);
    add(text.address);
    add(text.disk);
    for (std::uint64_t word : text.fill) add(word);
    return sum;
}

inline void compose(SectorText& text, std::uint64_t write, std::uint64_t disk,
                    std::uint64_t address) {
    text.write = write;
    text.address = address;
    text.disk = disk;
    std::uint64_t word = write * 0x9e3779b97f4a7c15u + address;
    for (std::uint64_t& fill : text.fill) fill = word += 0x9e3779b97f4a7c15u;
    text.checksum = checksum_of(text);
}

// The write that the sector is of; 0 for one that was never written. Ends the program where the
// sector is torn, or is not of this place.
inline std::uint64_t write_of(const std::uint8_t* bytes, std::uint64_t disk, std::uint64_t address,
                              std::uint64_t writes, const char* where) {
    SectorText text;
    std::memcpy(&text, bytes, sizeof(text));
    if (text.write == 0 && text.checksum == 0) return 0;
    if (text.checksum != checksum_of(text))
        fail("%s: disk %llu, sector %llu: torn", where, static_cast<unsigned long long>(disk),
             static_cast<unsigned long long>(address));
    if (text.disk != disk || text.address != address)
        fail("%s: disk %llu, sector %llu: is sector %llu of disk %llu", where,
             static_cast<unsigned long long>(disk), static_cast<unsigned long long>(address),
             static_cast<unsigned long long>(text.address),
             static_cast<unsigned long long>(text.disk));
    if (text.write > writes)
        fail("%s: disk %llu, sector %llu: of a write that never was", where,
             static_cast<unsigned long long>(disk), static_cast<unsigned long long>(address));
    return text.write;
}

struct Write {
    std::uint64_t disk = 0;
    std::uint64_t sector = 0;
    std::uint32_t sectors = 0;
    std::uint64_t submitted = 0;
    std::uint64_t completed = 0;
};

class Load {
  public:
    // `span`: the sectors of each disk that are written to. `forced`: one write in so many is
    // forced to the medium; 0: none. `in_turn`: these one at a time.
    Load(std::vector<const char*> nodes, std::uint64_t span, std::size_t writes, std::uint64_t seed,
         unsigned forced = 16, bool in_turn = false)
        : history_(writes), span_(span), seed_(seed), forced_(forced), in_turn_(in_turn) {
        for (const char* node : nodes) {
            files_.push_back(open(node, O_WRONLY | O_DIRECT | O_CLOEXEC));
            if (files_.back() < 0) fail("%s: %s", node, std::strerror(errno));
        }
    }

    void start(unsigned threads) {
        for (unsigned number = 0; number < threads; ++number)
            threads_.emplace_back([this, number] { run(number); });
    }
    void join() {
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }

    // Before everything that is submitted later, after everything that has completed.
    std::uint64_t tick() { return clock_.fetch_add(1, std::memory_order_seq_cst); }
    // Whole after join().
    [[nodiscard]] const std::vector<Write>& history() const { return history_; }

  private:
    void run(unsigned thread) {
        std::mt19937_64 random(seed_ * 1000 + thread);
        void* buffer = nullptr;
        if (posix_memalign(&buffer, 4096, kWriteSectorsMax * kSectorBytes) != 0) fail("no memory");
        auto* text = static_cast<SectorText*>(buffer);
        for (;;) {
            const std::size_t number = taken_.fetch_add(1);
            if (number >= history_.size()) break;
            Write& write = history_[number];
            write.disk = random() % files_.size();
            // Mostly small; one in eight up to the largest.
            write.sectors = 1 + static_cast<std::uint32_t>(
                                    random() % (random() % 8 == 0 ? kWriteSectorsMax : 16));
            const std::uint64_t range = random() % 2 == 0 ? kHotSectors : span_;
            write.sector = random() % (range - write.sectors + 1);
            for (std::uint32_t index = 0; index < write.sectors; ++index)
                compose(text[index], number + 1, write.disk, write.sector + index);
            const std::size_t bytes = std::size_t{write.sectors} * kSectorBytes;
            const iovec piece{buffer, bytes};
            const int flags = forced_ != 0 && random() % forced_ == 0 ? RWF_DSYNC : 0;
            std::unique_lock turn(turn_, std::defer_lock);
            if (flags != 0 && in_turn_) turn.lock();
            write.submitted = tick();
            const ssize_t done = pwritev2(files_[write.disk], &piece, 1,
                                          static_cast<off_t>(write.sector * kSectorBytes), flags);
            write.completed = tick();
            if (done != static_cast<ssize_t>(bytes))
                fail("write: %s", done < 0 ? std::strerror(errno) : "short");
        }
        std::free(buffer);
    }

    std::vector<int> files_;
    std::vector<Write> history_;
    std::uint64_t span_;
    std::uint64_t seed_;
    unsigned forced_;
    bool in_turn_;
    std::mutex turn_;
    std::atomic<std::size_t> taken_{0};
    std::atomic<std::uint64_t> clock_{1};
    std::vector<std::thread> threads_;
};

#endif
