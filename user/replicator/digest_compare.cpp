// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/digest_compare.h"

#include <algorithm>

#include "user/base/digest.h"

namespace herald::replicator {

Result<CompareOutcome> compare_digests(DiskReader& reader, uint64_t disk_bytes, uint64_t read_bytes,
                                       const CompareHooks& hooks) {
    const uint64_t blocks = (disk_bytes + HERALD_BLOCK_BYTES - 1) / HERALD_BLOCK_BYTES;
    const uint64_t blocks_per_read = read_bytes / HERALD_BLOCK_BYTES;
    uint64_t done_bytes = 0;
    for (uint64_t first = 0; first < blocks; first += HERALD_DIGESTS_PER_REQUEST_MAX) {
        const uint64_t count = std::min<uint64_t>(HERALD_DIGESTS_PER_REQUEST_MAX, blocks - first);
        auto known = hooks.digests(first, count);
        if (!known) return pass(known);
        if (known->size() != count * sizeof(Digest128)) {
            return fail(ErrorKind::retry, "digests: {} bytes came where {} were asked for",
                        known->size(), count * sizeof(Digest128));
        }
        const auto check = [&](const DiskReader::Done& done) -> Result<void> {
            for (uint64_t i = 0; i < done.chunk.run.count; ++i) {
                const uint64_t block = done.chunk.run.first + i;
                const uint64_t at = i * HERALD_BLOCK_BYTES;
                Digest128 theirs;
                std::copy_n(known->begin() + std::ptrdiff_t((block - first) * sizeof theirs),
                            sizeof theirs, theirs.bytes.begin());
                const bool same =
                    done.error == 0 && !theirs.is_unknown() &&
                    xxh3_128(done.data.subspan(
                        at, std::min<uint64_t>(HERALD_BLOCK_BYTES, done.data.size() - at))) ==
                        theirs;
                if (!same) hooks.differs({block, 1});
            }
            done_bytes += done.chunk.length;
            return {};
        };
        uint64_t next = first;
        while (next < first + count || reader.in_flight() > 0) {
            while (next < first + count && reader.room()) {
                Chunk chunk;
                chunk.run = {next, std::min(blocks_per_read, first + count - next)};
                chunk.offset = next * HERALD_BLOCK_BYTES;
                chunk.length =
                    std::min(chunk.run.count * HERALD_BLOCK_BYTES, disk_bytes - chunk.offset);
                auto submitted = reader.submit(chunk);
                if (!submitted) return pass(submitted);
                next += chunk.run.count;
            }
            auto waited = reader.wait(check);
            if (!waited) return pass(waited);
            if (!hooks.keep_on(done_bytes)) {
                auto dropped = reader.drop();
                if (!dropped) return pass(dropped);
                return CompareOutcome::stopped;
            }
        }
    }
    return CompareOutcome::finished;
}

}  // namespace herald::replicator
