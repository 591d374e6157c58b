// SPDX-License-Identifier: Apache-2.0
// Journal: one file of either format as a sequence of records: a v3 segment or a Hyper-V Replica
// Log (v2). Which it is is told by its first bytes.
// Promise: records come in the order in which they are to be applied, each proven as far as its
// format can; after damage none. What the v2 reader calls entries are writes here.
// Callers: one thread. Memory: that of the reader behind it, whatever the size of the file.
// Failure: as SegmentReader and v2::LogReader.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "user/hrl/record.h"
#include "user/hrl/segment_reader.h"
#include "user/hrl/v2/log_reader.h"

namespace herald::hrl {

enum class JournalFormat : uint8_t { v2 = 2, v3 = 3 };
const char* to_string(JournalFormat format);

// By the magic alone. corrupt: it begins as neither does.
Result<JournalFormat> detect_format(ByteSource& source);

// What both formats say of a file; nothing where one of them does not say it.
struct JournalFacts {
    JournalFormat format = JournalFormat::v3;
    std::string name;
    Uuid id;
    Uuid previous;  // nil: none
    std::optional<Uuid> machine;
    std::optional<Uuid> disk;
    std::optional<uint64_t> epoch;
    std::optional<uint64_t> disk_bytes;
    bool sealed = false;
    Contents contents = Contents::segment;
    uint32_t features_optional = 0;  // of v3; a rewritten file has none of them
    uint64_t first_position = 1;     // v2 counts its records from 1 in every file
    uint64_t created_ns = 0;
    uint64_t file_bytes = 0;
    bool operator==(const JournalFacts&) const = default;
};

struct JournalOptions {
    std::optional<v2::EntryOrder> entry_order;  // v2: where nothing proves one
    ReadOptions segment;                        // v3: keys, and what may be read without them
};

class Journal {
  public:
    static Result<std::unique_ptr<Journal>> open(std::unique_ptr<ByteSource> source,
                                                 const JournalOptions& options = {});
    virtual ~Journal() = default;

    const JournalFacts& facts() const { return facts_; }
    virtual bool whole() const = 0;
    // Empty when nothing was lost; otherwise one sentence. Complete when next() came to the end.
    virtual const std::string& loss() const = 0;
    // The next record, or nothing at the end. Its data stays valid until the next call.
    virtual Result<std::optional<Record>> next() = 0;
    // Blocks that cannot hold what the caller looks for: as SegmentReader::only(). A log has no
    // index to tell, and is read whole.
    virtual void only(std::function<bool(uint32_t block)>) {}
    // What a reader should know although nothing is wrong. Complete when next() came to the end.
    virtual std::vector<std::string> notices() const { return {}; }
    // The reader behind it, for what only one format has; null for the other.
    virtual const SegmentReader* segment() const { return nullptr; }
    virtual const v2::LogReader* log() const { return nullptr; }

  protected:
    explicit Journal(JournalFacts facts) : facts_(std::move(facts)) {}

  private:
    JournalFacts facts_;
};

// What a complete pass over a journal found.
struct JournalSummary {
    JournalFacts facts;
    std::vector<std::string> notices;
    uint64_t records = 0;
    uint64_t last_position = 0;
    uint64_t data_bytes = 0;  // of writes and payloads
    uint64_t disk_end = 0;    // the first byte of the disk behind every range
    uint64_t first_time_ns = 0;
    uint64_t last_time_ns = 0;
};

// Reads every record of a journal that must be whole; `visit` sees each one and may stop the pass
// by returning an error.
Result<JournalSummary> verify_journal(
    Journal& journal, const std::function<Result<void>(const Record&)>& visit = nullptr);

}  // namespace herald::hrl
