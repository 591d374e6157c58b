// SPDX-License-Identifier: Apache-2.0
// sector_load SEED WRITES THREADS SECTORS FORCED NODE...: the load of sectors.hpp on the first
// SECTORS of each disk. Never two flushes at once: dm-log-writes puts what each of two covers into
// its log in the order in which they end, which need not be that of the writes.
#include "sectors.hpp"

int main(int count, char** words) {
    if (count < 7) fail("usage: sector_load SEED WRITES THREADS SECTORS FORCED NODE...");
    Load load(std::vector<const char*>(words + 6, words + count),
              std::strtoull(words[4], nullptr, 10), std::strtoull(words[2], nullptr, 10),
              std::strtoull(words[1], nullptr, 10),
              static_cast<unsigned>(std::strtoul(words[5], nullptr, 10)), true);
    load.start(static_cast<unsigned>(std::strtoul(words[3], nullptr, 10)));
    load.join();
    return 0;
}
