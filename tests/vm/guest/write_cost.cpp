// SPDX-License-Identifier: Apache-2.0
// write_cost NODE BYTES COUNT [random|sequential [FIRST]]: that many O_DIRECT writes of that size,
// one after another, and the nanoseconds of all of them on standard output. In a machine that
// counts instructions (tests/vm/machine.py) these are instructions, of everything that ran
// meanwhile.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

namespace {

std::uint64_t now_ns() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(time.tv_nsec);
}

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

}  // namespace

int main(int count_of, char** words) {
    if (count_of != 6) {
        std::fputs("usage: write_cost NODE BYTES COUNT MIB random|sequential\n", stderr);
        return 2;
    }
    const std::uint64_t bytes = std::strtoull(words[2], nullptr, 10);
    const std::uint64_t count = std::strtoull(words[3], nullptr, 10);
    const std::uint64_t span = std::strtoull(words[4], nullptr, 10) << 20;
    const bool sequential = std::string(words[5]) == "sequential";
    const int disk = open(words[1], O_WRONLY | O_DIRECT | O_CLOEXEC);
    std::uint64_t disk_bytes = 0;
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &disk_bytes) != 0) fail(words[1]);
    void* buffer = nullptr;
    if (bytes == 0 || bytes % 512 != 0 || bytes > span || span > disk_bytes ||
        posix_memalign(&buffer, 4096, bytes) != 0)
        fail("buffer");
    std::memset(buffer, 0x5a, bytes);

    const std::uint64_t places = span / bytes;
    std::uint64_t random = 88172645463325252u;  // Marsaglia's xorshift64, with his seed
    const std::uint64_t began = now_ns();
    for (std::uint64_t number = 0; number < count; ++number) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const std::uint64_t place = (sequential ? number : random) % places;
        if (pwrite(disk, buffer, bytes, static_cast<off_t>(place * bytes)) !=
            static_cast<ssize_t>(bytes))
            fail("pwrite");
    }
    std::printf("%llu\n", static_cast<unsigned long long>(now_ns() - began));
    return 0;
}
