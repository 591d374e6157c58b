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
    bool unchecked = false;
    for (;;) {
        auto record = journal.next();
        if (!record && record.error().kind != ErrorKind::corrupt) return pass(record);
        if (!record) {
            found.loss = record.error().message + "; nothing from there on is kept";
            return found;
        }
        if (!*record) break;
        // Said before the first of it is written.
        if (!std::exchange(unchecked, unchecked || (*record)->data_is_unchecked) && unchecked) {
            print_err(
                "hrl: {}: entry {} and perhaps others have no data checksum: of their data nothing "
                "but its place is proven; they are given none in the new file\n",
                journal.facts().name, (*record)->position);
        }
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
    const JournalFacts& facts = journal.facts();
    const bool is_layer = facts.contents != Contents::segment;
    // The front of a segment is the disk as it was earlier. That of a layer is no state of the
    // disk at all: parts of it are missing, or, in an image, would read as zero.
    if (is_layer && !found->loss.empty()) {
        return fail(ErrorKind::corrupt,
                    "{} is a layer, and what is left of it is no state of the disk ({}): nothing "
                    "was written; use another copy of it, or the segments from position {} on that "
                    "it stands for (hrl records shows what is left)",
                    facts.name, found->loss, facts.first_position);
    }
    if (found->records == 0) {
        return fail(ErrorKind::corrupt, "nothing can be saved: {}", found->loss);
    }
    // A whole layer covers what its footer says; a segment what it holds.
    auto segment = stream.finish(is_layer ? journal.segment()->last_position().value_or(0) : 0);
    if (!segment) return pass(segment);
    return found;
}

Result<void> run(const RepairOptions& options) {
    auto journal = open_journal(options.file, options.journal);
    if (!journal) return pass(journal);
    if (const auto features = unknown_features((*journal)->facts())) {
        print_err("hrl: the new file will not have: {}\n", *features);
    }
    auto file = NewFile::create(options.target);
    if (!file) return pass(file);
    auto found = (*journal)->log()
                     ? repair_log(**journal, file->sink())
                     : repair_segment(**journal, options.journal.segment.keys, file->sink());
    if (!found) return pass(found);
    const uint64_t bytes = file->sink().size();
    auto committed = file->commit();
    if (!committed) return committed;
    print_out("{}: {} records, {}; {}\n", options.target.native(), found->records,
              bytes_text(bytes), found->loss.empty() ? "nothing was lost" : found->loss);
    return {};
}

}  // namespace

int repair(const RepairOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

}  // namespace herald::hrl_tool
