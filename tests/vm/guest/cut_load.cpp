// SPDX-License-Identifier: Apache-2.0
// cut_load SEED THREADS FIRST SPAN FLUSH PAUSE NODE [walk]: writes to [FIRST, FIRST + SPAN) of the
// disk, in sectors, until it is killed: small and large writes, much of it over itself, discards
// and zeroes among them; one operation in FLUSH is followed by a flush (0: none), each by a pause
// of up to PAUSE us. In every region of 4 MiB only the first blocks are written, so that many
// regions are touched and little is to be compared. With `walk` each thread takes one region after
// the other.
#include <linux/fs.h>

#include <random>
#include <string>
#include <thread>

#include "cbt_reader.hpp"

namespace {

constexpr std::uint64_t kSector = HERALD_CBT_SECTOR_BYTES;
constexpr std::uint64_t kRegion = 8192;
constexpr std::uint64_t kUsed = 320;  // sectors of each region: two and a half blocks
constexpr std::uint64_t kWriteMax = 64;

struct Job {
    const char* node;
    std::uint64_t seed, first, span, flush, pause;
    unsigned threads;
    bool walks;
};

void run(const Job& job, unsigned thread) {
    std::mt19937_64 random(job.seed * 1000 + thread);
    const int file = open(job.node, O_RDWR | O_DIRECT | O_CLOEXEC);
    void* buffer = nullptr;
    if (file < 0 || posix_memalign(&buffer, 4096, kWriteMax * kSector) != 0)
        fail("%s: %s", job.node, std::strerror(errno));
    auto* words = static_cast<std::uint64_t*>(buffer);
    const std::uint64_t regions = (job.span + kRegion - 1) / kRegion;
    for (std::uint64_t step = thread;; step += job.threads) {
        std::uint64_t sectors = 1 + random() % (random() % 8 == 0 ? kWriteMax : 12);
        const std::uint64_t begin = (job.walks ? step : random()) % regions * kRegion;
        const std::uint64_t room = std::min(kUsed, job.span - begin);
        sectors = std::min(sectors, room);
        std::uint64_t sector = job.first + begin + random() % (room - sectors + 1);
        const bool is_range = random() % 32 == 0 && room >= 32;
        if (is_range) {
            // In whole pages, as block devices are asked for them.
            std::uint64_t range[2] = {(sector & ~7ull) * kSector, 4096 * (1 + random() % 3)};
            const unsigned long what = random() % 2 == 0 ? BLKDISCARD : BLKZEROOUT;
            if (ioctl(file, what, range) != 0) fail("range: %s", std::strerror(errno));
        } else {
            for (std::uint64_t index = 0; index < sectors * kSector / 8; ++index)
                words[index] = random();
            if (pwrite(file, buffer, sectors * kSector, static_cast<off_t>(sector * kSector)) !=
                static_cast<ssize_t>(sectors * kSector))
                fail("write: %s", std::strerror(errno));
        }
        if (job.flush != 0 && random() % job.flush == 0 && fdatasync(file) != 0)
            fail("flush: %s", std::strerror(errno));
        // The machine is emulated: whoever is to watch it needs some of it.
        if (job.pause != 0) usleep(static_cast<useconds_t>(random() % job.pause));
    }
}

}  // namespace

int main(int count, char** words) {
    const bool walks = count == 9 && std::string(words[8]) == "walk";
    if (count != 8 && !walks)
        fail("usage: cut_load SEED THREADS FIRST SPAN FLUSH PAUSE NODE [walk]");
    const auto number = [words](int index) { return std::strtoull(words[index], nullptr, 10); };
    const Job job{words[7],
                  number(1),
                  number(3),
                  number(4),
                  number(5),
                  number(6),
                  static_cast<unsigned>(number(2)),
                  walks};
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < job.threads; ++thread)
        threads.emplace_back([&job, thread] { run(job, thread); });
    for (std::thread& thread : threads) thread.join();
    return 0;
}
