// SPDX-License-Identifier: Apache-2.0
// cbt_format META SECTORS: makes META a fresh meta device for a disk of that many sectors.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" {
#include "kernel/core/layout.h"
}

int main(int count, char** words) {
    const int file = count == 3 ? open(words[1], O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) {
        std::perror("usage: cbt_format META SECTORS");
        return 2;
    }
    const std::uint64_t sectors = std::strtoull(words[2], nullptr, 10);
    std::array<unsigned char, 16> tracking{'t', 'e', 's', 't'};
    std::array<unsigned char, CBT_META_BLOCK_BYTES> block{};
    for (std::uint64_t number = 0; number < cbt_meta_blocks(sectors); ++number) {
        cbt_meta_format(sectors, tracking.data(), number, block.data());
        if (pwrite(file, block.data(), block.size(), static_cast<off_t>(number * block.size())) !=
            static_cast<ssize_t>(block.size())) {
            std::perror(words[1]);
            return 1;
        }
    }
    return fsync(file) == 0 ? 0 : 1;
}
