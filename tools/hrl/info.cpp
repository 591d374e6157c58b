// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/info_log.h"
#include "tools/hrl/inputs.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/segment_reader.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;
using Json = nlohmann::ordered_json;

struct Facts {
    SegmentHeader header;
    bool whole = false;
    std::string loss;
    std::vector<std::string> notices;
    uint64_t file_bytes = 0;
    uint64_t records = 0;
    uint64_t raw_bytes = 0;
    uint64_t last_position = 0;
    uint64_t time_min_ns = UINT64_MAX;
    uint64_t time_max_ns = 0;
    std::vector<IndexEntryDisk> blocks;
};

Result<Facts> gather(Journal& journal) {
    const SegmentReader& reader = *journal.segment();
    Facts facts;
    facts.file_bytes = journal.facts().file_bytes;
    facts.header = reader.header();
    facts.whole = reader.whole();
    facts.last_position = reader.last_position().value_or(facts.header.first_position - 1);
    facts.blocks.assign(reader.blocks().begin(), reader.blocks().end());
    for (const auto& block : facts.blocks) {
        facts.records += block.record_count;
        facts.raw_bytes += block.raw_bytes;
        facts.time_min_ns = std::min(facts.time_min_ns, block.time_min_ns);
        facts.time_max_ns = std::max(facts.time_max_ns, block.time_max_ns);
    }
    while (!facts.whole) {
        auto record = journal.next();
        if (!record) return pass(record);
        if (!*record) break;
        facts.records += 1;
        facts.last_position = std::max(facts.last_position, (*record)->position);
        facts.raw_bytes += sizeof(RecordHeaderDisk) + (*record)->data.size();
        facts.time_min_ns = std::min(facts.time_min_ns, (*record)->time_ns);
        facts.time_max_ns = std::max(facts.time_max_ns, (*record)->time_ns);
    }
    facts.loss = reader.loss();
    facts.notices = journal.notices();
    if (facts.records == 0) facts.time_min_ns = 0;
    return facts;
}

std::vector<const char*> kind_names(uint32_t kinds) {
    std::vector<const char*> names;
    for (unsigned kind = 1; kind <= unsigned(RecordKind::activation); ++kind) {
        if (kinds >> kind & 1) names.push_back(to_string(RecordKind(kind)));
    }
    return names;
}

const char* sealed_by(const SegmentHeader& header) {
    if (header.sealed_by == SealedBy::nobody) return "nobody";
    return header.sealed_by == SealedBy::server ? "server" : "source";
}

const char* contents(const SegmentHeader& header) {
    if (header.contents == Contents::segment) return "segment";
    return header.contents == Contents::delta_layer ? "delta layer" : "image layer";
}

const char* record_order(const SegmentHeader& header) {
    return header.order == RecordOrder::by_position ? "position" : "block";
}

// 0 where the records lie by position.
uint64_t granule_bytes(const SegmentHeader& header) {
    return header.granule_log2 == 0 ? 0 : uint64_t{1} << header.granule_log2;
}

void print_json(const std::string& file, const Facts& facts, bool with_blocks) {
    const SegmentHeader& header = facts.header;
    Json json{{"file", file},
              {"format", "hrl v3"},
              {"whole", facts.whole},
              {"loss", facts.loss},
              {"notices", facts.notices},
              {"segment", to_string(header.segment)},
              {"previous_segment", to_string(header.previous_segment)},
              {"machine", to_string(header.machine)},
              {"disk", to_string(header.disk)},
              {"epoch", header.epoch},
              {"features_optional", header.features_optional},
              {"sealed_by", sealed_by(header)},
              {"key", to_string(header.key_id)},
              {"contents", contents(header)},
              {"record_order", record_order(header)},
              {"granule_bytes", granule_bytes(header)},
              {"disk_bytes", header.disk_bytes},
              {"created", time_text(header.created_ns)},
              {"first_position", header.first_position},
              {"last_position", facts.last_position},
              {"records", facts.records},
              {"first_time", time_text(facts.time_min_ns)},
              {"last_time", time_text(facts.time_max_ns)},
              {"block_bytes", header.block_bytes},
              {"raw_bytes", facts.raw_bytes},
              {"file_bytes", facts.file_bytes}};
    if (with_blocks) {
        json["blocks"] = Json::array();
        for (const auto& block : facts.blocks) {
            json["blocks"].push_back({{"file_offset", block.file_offset},
                                      {"first_position", block.first_position},
                                      {"records", block.record_count},
                                      {"raw_bytes", block.raw_bytes},
                                      {"stored_bytes", block.stored_bytes},
                                      {"disk_offset_min", block.disk_offset_min},
                                      {"disk_offset_end", block.disk_offset_end},
                                      {"first_time", time_text(block.time_min_ns)},
                                      {"last_time", time_text(block.time_max_ns)},
                                      {"kinds", kind_names(block.kinds)}});
        }
    }
    print_out("{}\n", json_text(json, 2));
}

void print_text(const Facts& facts, bool with_blocks) {
    const SegmentHeader& header = facts.header;
    const auto line = [](const char* name, const std::string& value) {
        print_out("{:<10} {}\n", name, value);
    };
    line("segment", to_string(header.segment));
    if (header.contents == Contents::segment) {
        line("after", header.previous_segment.is_nil() ? "none: it is the first"
                                                       : to_string(header.previous_segment));
    }
    line("machine", to_string(header.machine));
    line("disk", fmt::format("{}, {}", to_string(header.disk), bytes_text(header.disk_bytes)));
    if (header.contents != Contents::segment) {
        line("contents", fmt::format("{}, records by {}", contents(header), record_order(header)) +
                             (header.granule_log2 == 0
                                  ? ""
                                  : fmt::format(" of {}", bytes_text(granule_bytes(header)))));
    }
    if (header.sealed_by != SealedBy::nobody) {
        line("sealed",
             fmt::format("by the {}, key {}", sealed_by(header), to_string(header.key_id)));
    }
    if (header.features_optional != 0) {
        line("features",
             fmt::format("optional {}, not known here", bits_text(header.features_optional)));
    }
    line("epoch", fmt::format("{}", header.epoch));
    line("created", time_text(header.created_ns));
    if (facts.records == 0) {
        line("records", "none");
    } else {
        line("records", fmt::format("{}, positions {} to {}", facts.records, header.first_position,
                                    facts.last_position));
        line("times",
             fmt::format("{} to {}", time_text(facts.time_min_ns), time_text(facts.time_max_ns)));
    }
    if (facts.whole)
        line("blocks",
             fmt::format("{} of {}", facts.blocks.size(), bytes_text(header.block_bytes)));
    line("size", fmt::format("{} for {} of records ({:.1f} %)", bytes_text(facts.file_bytes),
                             bytes_text(facts.raw_bytes),
                             100.0 * double(facts.file_bytes) /
                                 double(std::max<uint64_t>(facts.raw_bytes, 1))));
    line("whole", facts.whole ? "yes, by header and index (verify reads the rest)"
                              : painted(Colour::red, "NO"));
    for (const auto& notice : facts.notices) line("note", notice);
    if (!with_blocks) return;
    print_out("\n{:>6} {:>10} {:>12} {:>8} {:>10} {:>10}  {}\n", "block", "byte", "position",
              "records", "raw", "stored", "disk range; kinds");
    for (size_t i = 0; i < facts.blocks.size(); ++i) {
        const auto& block = facts.blocks[i];
        print_out("{:>6} {:>10} {:>12} {:>8} {:>10} {:>10}  {}..{}; {}\n", i, block.file_offset,
                  block.first_position, block.record_count, block.raw_bytes, block.stored_bytes,
                  block.disk_offset_min, block.disk_offset_end,
                  fmt::join(kind_names(block.kinds), " "));
    }
}

}  // namespace

int info(const InfoOptions& options) {
    auto journal = open_journal(options.file, may_look(options.journal));
    if (!journal) return report(journal.error());
    if (const v2::LogReader* log = (*journal)->log()) {
        return info_of_log(options, *log, (*journal)->facts().file_bytes);
    }
    auto facts = gather(**journal);
    if (!facts) return report(facts.error());
    if (options.json) {
        print_json(options.file.native(), *facts, options.blocks);
    } else {
        print_text(*facts, options.blocks);
    }
    if (facts->whole) return kDone;
    return report({ErrorKind::corrupt, facts->loss, 0});
}

}  // namespace herald::hrl_tool
