// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/journal.h"

#include <algorithm>

#include "user/hrl/block_summary.h"

namespace herald::hrl {

namespace {

class SegmentJournal : public Journal {
  public:
    SegmentJournal(JournalFacts facts, SegmentReader reader)
        : Journal(std::move(facts)), reader_(std::move(reader)) {}
    bool whole() const override { return reader_.whole(); }
    const std::string& loss() const override { return reader_.loss(); }
    Result<std::optional<Record>> next() override { return reader_.next(); }
    const SegmentReader* segment() const override { return &reader_; }
    void only(std::function<bool(uint32_t)> wanted) override { reader_.only(std::move(wanted)); }
    std::vector<std::string> notices() const override {
        if (!facts().sealed || reader_.opens_data()) return {};
        return {
            "it is sealed and was read without its key: nothing of it is authenticated, zeroes, "
            "discards and tags neither, and the data of its writes is not shown"};
    }

  private:
    SegmentReader reader_;
};

class LogJournal : public Journal {
  public:
    LogJournal(JournalFacts facts, v2::LogReader reader)
        : Journal(std::move(facts)), reader_(std::move(reader)) {}
    bool whole() const override { return reader_.whole(); }
    const std::string& loss() const override { return reader_.loss(); }
    Result<std::optional<Record>> next() override { return reader_.next(); }
    const v2::LogReader* log() const override { return &reader_; }
    std::vector<std::string> notices() const override {
        std::vector<std::string> notices;
        if (const uint64_t unchecked = reader_.entries_unchecked(); unchecked != 0) {
            notices.push_back(
                fmt::format("{} of {} entries have no data checksum: of their data "
                            "nothing but its place is proven",
                            unchecked, reader_.entries_read()));
        }
        if (const uint64_t trailing = reader_.trailing_bytes(); trailing != 0) {
            notices.push_back(
                fmt::format("{} bytes behind the end of the log belong to nothing", trailing));
        }
        return notices;
    }

  private:
    v2::LogReader reader_;
};

Result<std::unique_ptr<Journal>> open_segment(std::unique_ptr<ByteSource> source,
                                              JournalFacts facts, const ReadOptions& options) {
    auto reader = SegmentReader::open(std::move(source), options);
    if (!reader) return pass(reader);
    const SegmentHeader& header = reader->header();
    facts.id = header.segment;
    facts.previous = header.previous_segment;
    facts.machine = header.machine;
    facts.disk = header.disk;
    facts.epoch = header.epoch;
    facts.disk_bytes = header.disk_bytes;
    facts.contents = header.contents;
    facts.features_optional = header.features_optional;
    facts.sealed = header.sealed_by != SealedBy::nobody;
    facts.first_position = header.first_position;
    facts.created_ns = header.created_ns;
    return std::unique_ptr<Journal>(
        std::make_unique<SegmentJournal>(std::move(facts), std::move(*reader)));
}

Result<std::unique_ptr<Journal>> open_log(std::unique_ptr<ByteSource> source, JournalFacts facts,
                                          const JournalOptions& options) {
    auto reader = v2::LogReader::open(std::move(source), options.entry_order);
    if (!reader) return pass(reader);
    const v2::LogHeader& header = reader->header();
    facts.id = header.id;
    facts.previous = header.previous_id;
    facts.created_ns = v2::time_ns_of(header.time);
    return std::unique_ptr<Journal>(
        std::make_unique<LogJournal>(std::move(facts), std::move(*reader)));
}

}  // namespace

const char* to_string(JournalFormat format) { return format == JournalFormat::v2 ? "v2" : "v3"; }

Result<JournalFormat> detect_format(ByteSource& source) {
    auto log = v2::is_log(source);
    if (!log) return pass(log);
    if (*log) return JournalFormat::v2;
    std::array<uint8_t, kSegmentMagic.size()> found{};
    if (source.size() >= found.size()) {
        auto read = source.read(0, std::as_writable_bytes(std::span(found)));
        if (!read) return pass(read);
        if (found == kSegmentMagic) return JournalFormat::v3;
    }
    return fail(ErrorKind::corrupt, "{}: neither a segment (v3) nor a replica log (v2)",
                source.name());
}

Result<std::unique_ptr<Journal>> Journal::open(std::unique_ptr<ByteSource> source,
                                               const JournalOptions& options) {
    auto format = detect_format(*source);
    if (!format) return pass(format);
    JournalFacts facts;
    facts.format = *format;
    facts.name = source->name();
    facts.file_bytes = source->size();
    return *format == JournalFormat::v2
               ? open_log(std::move(source), std::move(facts), options)
               : open_segment(std::move(source), std::move(facts), options.segment);
}

Result<JournalSummary> verify_journal(Journal& journal,
                                      const std::function<Result<void>(const Record&)>& visit) {
    JournalSummary summary;
    summary.facts = journal.facts();
    summary.last_position = summary.facts.first_position - 1;
    for (;;) {
        auto record = journal.next();
        if (!record) return pass(record);
        if (!*record) break;
        // A torn file is walked only to say where it is torn.
        if (!journal.whole()) continue;
        const Record& found = **record;
        summary.first_time_ns =
            summary.records == 0 ? found.time_ns : std::min(summary.first_time_ns, found.time_ns);
        summary.last_time_ns = std::max(summary.last_time_ns, found.time_ns);
        summary.records += 1;
        summary.last_position = found.position;
        summary.data_bytes += found.data.size();
        if (has_range(found.kind)) {
            summary.disk_end = std::max(summary.disk_end, found.offset + found.length);
        }
        if (!visit) continue;
        auto visited = visit(found);
        if (!visited) return pass(visited);
    }
    if (!journal.whole()) return fail(ErrorKind::corrupt, "{}", journal.loss());
    // Not that of the last record in a layer.
    if (journal.segment()) summary.last_position = *journal.segment()->last_position();
    summary.notices = journal.notices();
    return summary;
}

}  // namespace herald::hrl
