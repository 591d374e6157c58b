// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/segment_reader.h"

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
    fmt::print("{}{}", first ? "\n" : ",\n", json_text(json));
}

void print_text(const Record& record) {
    fmt::print("{:>10}  {}  {:<12}", record.position, time_text(record.time_ns),
               to_string(record.kind));
    if (record.kind == RecordKind::resize) {
        fmt::print(" to {}", record.length);
    } else if (record.length != 0) {
        fmt::print(" {:>14} +{}", record.offset, record.length);
    }
    const Json payload = payload_json(record);
    for (const auto& [name, value] : payload.items()) fmt::print(" {}={}", name, json_text(value));
    fmt::print("\n");
}

}  // namespace

int records(const RecordsOptions& options) {
    auto source = file_source(options.file);
    if (!source) return report(source.error());
    auto reader = SegmentReader::open(std::move(*source));
    if (!reader) return report(reader.error());
    if (options.json) fmt::print("[");
    int status = kDone;
    for (bool first = true;; first = false) {
        auto record = reader->next();
        if (!record) {
            status = report(record.error());
            break;
        }
        if (!*record) break;
        if (options.json) {
            print_json(**record, first);
        } else {
            print_text(**record);
        }
    }
    if (options.json) fmt::print("\n]\n");
    if (status != kDone || reader->whole()) return status;
    return report({ErrorKind::corrupt, reader->loss(), 0});
}

}  // namespace herald::hrl_tool
