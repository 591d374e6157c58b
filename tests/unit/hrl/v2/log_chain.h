// SPDX-License-Identifier: Apache-2.0
// A chain of replica logs in a directory in which the hrl program runs, and a segment of version 3
// for beside it.
#pragma once

#include "tests/unit/hrl/tool_directory.h"
#include "tests/unit/hrl/v2/sample_logs.h"

namespace herald::hrl::v2::test {

namespace logs = herald::hrl::v2::test;
namespace segments = herald::hrl::test;

inline constexpr uint64_t kDisk = 1 << 20;

// Logs of a chain, c.hrl the first, and the disk after all of them.
struct LogChain : segments::ToolDirectory {
    std::vector<Write> writes = sample_writes(31, 90, kDisk);

    LogChain() {
        for (const int i : {0, 1, 2}) {
            LogShape shape;
            shape.id = uint8_t(0x70 + i);
            shape.previous = uint8_t(i == 0 ? 0x11 : 0x6f + i);
            const std::vector<Write> part(writes.begin() + i * 30, writes.begin() + i * 30 + 30);
            write(std::string(1, char('c' - i)) + ".hrl", build_log(part, shape));
        }
    }
    Bytes disk_at(size_t count, Bytes disk = Bytes(kDisk)) const {
        for (size_t i = 0; i < count; ++i) {
            std::copy(writes[i].data.begin(), writes[i].data.end(),
                      disk.begin() + ptrdiff_t(writes[i].offset));
        }
        return disk;
    }
};

inline Bytes sample_segment(uint64_t seed = 3) {
    return segments::write_segment(segments::sample_header(4096),
                                   segments::sample_records(seed, 60, kDisk))
        .bytes;
}

}  // namespace herald::hrl::v2::test
