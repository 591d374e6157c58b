// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/inputs.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/block_summary.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;
using Json = nlohmann::ordered_json;

// What a marker says, as fields. The reader has already seen the payload decode.
Json payload_json(const Record& record) {
    Json json = Json::object();
    switch (record.kind) {
        case RecordKind::tag:
            if (auto tag = decode_tag(record.data)) {
                json = {{"id", to_string(tag->id)},
                        {"time", time_text(tag->time_ns)},
                        {"tag_kind", to_string(tag->kind)},
                        {"consistency", to_string(tag->consistency)},
                        {"name", tag->name}};
            }
            break;
        case RecordKind::scan_begin:
            if (auto mark = decode_scan_begin(record.data)) {
                json = {{"scan", mark->scan}, {"cause", to_string(mark->cause)}};
            }
            break;
        case RecordKind::scan_end:
            if (auto mark = decode_scan_end(record.data)) {
                json = {{"scan", mark->scan},
                        {"quiescent", mark->quiescent},
                        {"unreadable_blocks", mark->unreadable_blocks}};
            }
            break;
        case RecordKind::mode_change:
            if (auto change = decode_mode_change(record.data)) {
                json = {{"mode", to_string(change->mode)}, {"cause", change->cause}};
            }
            break;
        case RecordKind::activation:
            if (auto activation = decode_activation(record.data)) {
                json = {{"session", to_string(activation->session)},
                        {"mode", to_string(activation->mode)},
                        {"tracker", activation->tracker},
                        {"gap", activation->gap}};
            }
            break;
        default:
            break;
    }
    return json;
}

void print_json(const Record& record, bool first) {
    Json json{{"position", record.position},
              {"time", time_text(record.time_ns)},
              {"kind", to_string(record.kind)},
              {"offset", record.offset},
              {"length", record.length}};
    json.update(payload_json(record));
    print_out("{}{}", first ? "\n" : ",\n", json_text(json));
}

Colour colour_of(RecordKind kind) {
    switch (kind) {
        case RecordKind::write:
            return Colour::none;
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
            return Colour::grey;
        case RecordKind::tag:
            return Colour::green;
        case RecordKind::reread:
            return Colour::yellow;
        default:
            return Colour::blue;
    }
}

bool asks_for_range(const RecordsOptions& options) {
    return options.range_begin != 0 || options.range_end != UINT64_MAX;
}

// A range of the disk asks for the records that touch it, hence for none that have no range.
bool is_wanted(const Record& record, const RecordsOptions& options) {
    if (record.position < options.first_position || record.position > options.last_position ||
        record.time_ns < options.since_ns || record.time_ns >= options.before_ns) {
        return false;
    }
    if (!asks_for_range(options)) return true;
    return has_range(record.kind) && record.offset < options.range_end &&
           record.offset + record.length > options.range_begin;
}

// Whether a block may hold such a record, by what the index says of it.
bool may_hold(const SegmentReader& segment, uint32_t block, const RecordsOptions& options) {
    const IndexEntryDisk& entry = segment.blocks()[block];
    uint64_t first = entry.first_position;
    uint64_t last = *segment.last_position();
    if (segment.header().contents == Contents::segment) {
        last = first + entry.record_count - 1;
    } else if (segment.header().order == RecordOrder::by_block_then_position) {
        first = segment.header().first_position;
    } else if (block + 1 < segment.blocks().size()) {
        last = segment.blocks()[block + 1].first_position;
    }
    if (last < options.first_position || first > options.last_position ||
        entry.time_max_ns < options.since_ns || entry.time_min_ns >= options.before_ns) {
        return false;
    }
    return !asks_for_range(options) || (entry.disk_offset_min < options.range_end &&
                                        entry.disk_offset_end > options.range_begin);
}

void print_text(const Record& record) {
    print_out("{:>10}  {}  {}", record.position, time_text(record.time_ns),
              painted(colour_of(record.kind), fmt::format("{:<12}", to_string(record.kind))));
    if (record.kind == RecordKind::resize) {
        print_out(" to {}", record.length);
    } else if (record.length != 0) {
        print_out(" {:>14} +{}", record.offset, record.length);
    }
    const Json payload = payload_json(record);
    for (const auto& [name, value] : payload.items()) print_out(" {}={}", name, json_text(value));
    print_out("\n");
}

}  // namespace

int records(const RecordsOptions& options) {
    auto journal = open_journal(options.file, may_look(options.journal));
    if (!journal) return report(journal.error());
    (*journal)->only(
        [&](uint32_t block) { return may_hold(*(*journal)->segment(), block, options); });
    // The listing stays one record a line.
    for (const auto& notice : (*journal)->notices()) {
        print_err("hrl: {}: note: {}\n", options.file.native(), notice);
    }
    if (options.json) print_out("[");
    int status = kDone;
    for (bool first = true; !output_failed();) {
        auto record = (*journal)->next();
        if (!record) {
            status = report(record.error());
            break;
        }
        if (!*record) break;
        if (!is_wanted(**record, options)) continue;
        if (options.json) {
            print_json(**record, first);
        } else {
            print_text(**record);
        }
        first = false;
    }
    if (options.json) print_out("\n]\n");
    if (status != kDone || (*journal)->whole() || output_failed()) return status;
    return report({ErrorKind::corrupt, (*journal)->loss(), 0});
}

}  // namespace herald::hrl_tool
