// SPDX-License-Identifier: Apache-2.0
// LogWriter writes one Hyper-V Replica Log through a sink: data as it comes, a metadata block
// behind every 126 writes (at the usual size of a block), the closed header last.
// Promise: at every moment what is in the sink is a log that was not closed, and opens to every
// write up to the last metadata block; after finish() it is closed and durable.
// It leaves one slot of every block unused, so that the order of entries is never in doubt, and
// gives every entry a data checksum, unless it is told that nothing proves the data.
// Callers: one thread. Memory: one metadata block. Failure: a write no disk can have is refused.
// Layout: docs/formats/mshrl.md
#pragma once

#include "user/hrl/byte_sink.h"
#include "user/hrl/v2/log_header.h"
#include "user/hrl/v2/metadata.h"

namespace herald::hrl::v2 {

class LogWriter {
  public:
    // Ids, times, creator and metadata_bytes are taken from `header`; sizes, end and count are the
    // writer's. The sink is empty and outlives the writer.
    static Result<LogWriter> open(ByteSink& sink, const LogHeader& header,
                                  EntryOrder order = EntryOrder::newest_first);
    // `time` in seconds since 2000. Data of more than HERALD_RECORD_DATA_BYTES_MAX is refused.
    // `unchecked`: data that was read without a checksum does not get one by being copied.
    Result<void> append(uint64_t byte_offset, ByteView data, uint32_t time, bool unchecked = false);
    // Writes the last metadata block and closes the log.
    Result<LogHeader> finish();
    uint64_t entry_count() const { return header_.entry_count; }

  private:
    LogWriter(ByteSink& sink, const LogHeader& header, EntryOrder order);
    Result<void> write_block();

    ByteSink* sink_;
    LogHeader header_;
    EntryOrder order_;
    std::vector<Entry> entries_;  // since the last block
    uint64_t last_block_ = 0;     // where it begins; 0 when there is none
};

}  // namespace herald::hrl::v2
