// SPDX-License-Identifier: Apache-2.0
// DigestCompare finds the blocks of a disk that differ from the server's digests: XXH3-128 of each
// 64 KiB block (the last one may be short), read with O_DIRECT, several reads in flight.
// Promise: every block whose content at the moment of its read is not known to be the server's is
// reported. Writes meanwhile are the tracker's business, which was attached before.
// Callers: the disk's thread. Memory: the reader's buffers and one answer of digests (1 MiB).
// Failure: an unreadable block is reported as different. `keep_on` false ends it early.
#pragma once

#include <functional>

#include "user/replicator/disk_reader.h"

namespace herald::replicator {

struct CompareHooks {
    // The server's digests of blocks [first, first + count): count * 16 bytes.
    std::function<Result<Bytes>(uint64_t first, uint64_t count)> digests;
    std::function<void(tracker::BlockRun)> differs;
    // Called after every read with the bytes compared so far; false: stop.
    std::function<bool(uint64_t done_bytes)> keep_on;
};

enum class CompareOutcome { finished, stopped };
Result<CompareOutcome> compare_digests(DiskReader& reader, uint64_t disk_bytes, uint64_t read_bytes,
                                       const CompareHooks& hooks);

}  // namespace herald::replicator
