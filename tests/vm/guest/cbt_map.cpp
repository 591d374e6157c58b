// SPDX-License-Identifier: Apache-2.0
// cbt_map NODE: the dirty blocks of a disk, of both generations, as the driver says: runs
// FIRST-LAST, one a line. Owns nothing, so that nothing changes by it.
#include "cbt_reader.hpp"

int main(int count, char** words) {
    if (count != 2) fail("usage: cbt_map NODE");
    const int file = open_driver();
    std::vector<std::uint8_t> bits(HERALD_CBT_MAP_BYTES_MAX);
    bool inside = false;
    std::uint64_t first = 0;
    std::uint64_t block = 0;
    for (;;) {
        herald_cbt_map_abi map{};
        map.disk = disk_of(words[1]);
        map.which = HERALD_CBT_BITMAP_BOTH;
        map.first_block = block;
        map.blocks = bits.size() * 8;
        map.buffer = reinterpret_cast<std::uint64_t>(bits.data());
        if (call(file, HERALD_CBT_MAP, map) != 0) fail("map: %s", std::strerror(errno));
        for (std::uint64_t index = 0; index < map.blocks; ++index, ++block) {
            const bool dirty = (bits[index / 8] >> (index % 8) & 1) != 0;
            if (dirty && !inside) first = block;
            if (!dirty && inside)
                std::printf("%llu-%llu\n", static_cast<unsigned long long>(first),
                            static_cast<unsigned long long>(block - 1));
            inside = dirty;
        }
        if (map.blocks < bits.size() * 8) break;
    }
    if (inside)
        std::printf("%llu-%llu\n", static_cast<unsigned long long>(first),
                    static_cast<unsigned long long>(block - 1));
    return 0;
}
