// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/inputs.h"
#include "tools/hrl/new_file.h"
#include "tools/hrl/progress.h"
#include "tools/hrl/rewrite.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/convert.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

// What repair found: how many records, and why not more (empty when nothing is missing).
struct Found {
    uint64_t records = 0;
    std::string loss;
};

// Hands out what is proven. Damage ends it; trouble with reading is an error.
Result<Found> read_proven(Journal& journal,
                          const std::function<Result<void>(const Record&)>& visit) {
    Progress progress("repairing", journal.facts().file_bytes);
    Found found;
    uint64_t read_bytes = 0;
    for (;;) {
        auto record = journal.next();
        if (!record && record.error().kind != ErrorKind::corrupt) return pass(record);
        if (!record) {
            found.loss = record.error().message + "; nothing from there on is kept";
            return found;
        }
        if (!*record) break;
        auto visited = visit(**record);
        if (!visited) return pass(visited);
        found.records += 1;
        read_bytes += (*record)->data.size();
        progress.at(std::min(read_bytes, journal.facts().file_bytes));
    }
    found.loss = journal.loss();
    return found;
}

Result<Found> repair_log(Journal& journal, ByteSink& sink) {
    // Who this log is stays; sizes, end and count become what they are now.
    auto converter = LogConverter::open(sink, [&] {
        v2::LogHeader header = journal.log()->header();
        header.version = v2::kVersion2;
        return header;
    }());
    if (!converter) return pass(converter);
    auto found = read_proven(journal, [&](const Record& record) { return converter->add(record); });
    if (!found) return found;
    auto finished = converter->finish();
    if (!finished) return pass(finished);
    return found;
}

Result<Found> repair_segment(Journal& journal, const seal::KeySource* keys, ByteSink& sink) {
    auto writer = writer_like(journal.segment()->header(), keys);
    if (!writer) return pass(writer);
    SegmentStream stream(std::move(*writer), sink);
    auto found = read_proven(journal, [&](const Record& record) { return stream.append(record); });
    if (!found) return found;
    if (found->records == 0) {
        return fail(ErrorKind::corrupt, "nothing can be saved: {}", found->loss);
    }
    // A layer covers what its footer says, where that is left; a segment what it holds.
    const bool is_layer = journal.facts().contents != Contents::segment;
    auto segment = stream.finish(is_layer ? journal.segment()->last_position().value_or(0) : 0);
    if (!segment) return pass(segment);
    return found;
}

Result<void> run(const RepairOptions& options) {
    auto journal = open_journal(options.file, options.journal);
    if (!journal) return pass(journal);
    auto file = NewFile::create(options.target);
    if (!file) return pass(file);
    auto found = (*journal)->log()
                     ? repair_log(**journal, file->sink())
                     : repair_segment(**journal, options.journal.segment.keys, file->sink());
    if (!found) return pass(found);
    const uint64_t bytes = file->sink().size();
    auto committed = file->commit();
    if (!committed) return committed;
    fmt::print("{}: {} records, {}; {}\n", options.target.native(), found->records,
               bytes_text(bytes), found->loss.empty() ? "nothing was lost" : found->loss);
    return {};
}

}  // namespace

int repair(const RepairOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

}  // namespace herald::hrl_tool
