// SPDX-License-Identifier: Apache-2.0
#include "user/vault/stream_state.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "herald/limits.h"

namespace herald::vault {

using hrl::RecordKind;
using hrl::StreamMode;

namespace {
using hrl::ScanCause;

bool is_whole(ScanCause cause) {
    return cause == ScanCause::initial || cause == ScanCause::full || cause == ScanCause::digest;
}

constexpr char kGrew[] = "the disk grew and was not scanned since";
}  // namespace

void StreamState::begin_segment(uint64_t disk_bytes) {
    if (disk_bytes != disk_bytes_) quiescent_ = false;
    if (active_ && disk_bytes > disk_bytes_) need_scan(kGrew);
    disk_bytes_ = disk_bytes;
}

void StreamState::observe_data() { quiescent_ = false; }

// Scans that are open now began before the cause, so their end does not answer it.
void StreamState::need_scan(std::string cause) {
    needs_scan_ = std::move(cause);
    for (OpenScan& scan : open_) scan.covers = false;
}

Result<std::optional<TagVerdict>> StreamState::observe(const hrl::Record& record) {
    if (record.kind == RecordKind::tag) {
        auto tag = hrl::decode_tag(record.data);
        if (!tag) return pass(tag);
        std::string why = refusal();
        return std::optional(
            TagVerdict{std::move(*tag), record.position, disk_bytes_, std::move(why)});
    }
    const bool was_quiescent = std::exchange(quiescent_, false);
    switch (record.kind) {
        case RecordKind::resize:
            if (record.length > disk_bytes_) need_scan(kGrew);
            disk_bytes_ = record.length;
            break;
        case RecordKind::reread:
            need_scan("a range could not be captured and was not scanned again yet");
            break;
        case RecordKind::scan_begin: {
            auto mark = hrl::decode_scan_begin(record.data);
            if (!mark) return pass(mark);
            if (open_.size() >= HERALD_SCANS_OPEN_MAX) {
                return fail(ErrorKind::corrupt, "record {}: {} scans are open already",
                            record.position, open_.size());
            }
            open_.push_back({mark->scan, is_whole(mark->cause), true});
            break;
        }
        case RecordKind::scan_end: {
            auto mark = hrl::decode_scan_end(record.data);
            if (!mark) return pass(mark);
            const auto scan = std::find_if(open_.begin(), open_.end(), [&](const OpenScan& open) {
                return open.scan == mark->scan;
            });
            // The end of a scan that never began proves nothing about the disk.
            if (scan == open_.end()) break;
            const OpenScan ended = *scan;
            open_.erase(scan);
            if (mark->unreadable_blocks > 0) {
                need_scan(fmt::format("{} blocks of the disk could not be read in its last scan",
                                      mark->unreadable_blocks));
                break;
            }
            ever_scanned_ = ever_scanned_ || ended.whole;
            if (ended.covers) needs_scan_.clear();
            quiescent_ = mark->quiescent && open_.empty() && needs_scan_.empty() && ever_scanned_;
            break;
        }
        case RecordKind::mode_change: {
            auto change = hrl::decode_mode_change(record.data);
            if (!change) return pass(change);
            mode_ = change->mode;
            // Also when it climbs back: what was written without its data is not there yet.
            need_scan(fmt::format("no scan has ended since the mode became {}{}{}",
                                  hrl::to_string(mode_), change->cause.empty() ? "" : ": ",
                                  change->cause));
            break;
        }
        case RecordKind::activation: {
            auto activation = hrl::decode_activation(record.data);
            if (!activation) return pass(activation);
            active_ = true;
            mode_ = activation->mode;
            open_.clear();
            need_scan("no scan has ended since the session began");
            break;
        }
        case RecordKind::write:
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
            break;
        default:
            quiescent_ = was_quiescent;
            return fail(ErrorKind::corrupt, "record {} is of the unknown kind {}", record.position,
                        unsigned(record.kind));
    }
    return std::optional<TagVerdict>();
}

// What keeps a stream fuzzy whatever the tag is.
std::string StreamState::standing_refusal() const {
    if (!active_) return "no session has begun";
    if (!needs_scan_.empty()) return needs_scan_;
    if (!ever_scanned_) return "no scan of the whole disk has ended yet";
    if (mode_ == StreamMode::extents || mode_ == StreamMode::map) {
        return fmt::format("the stream is in mode {} and misses data", hrl::to_string(mode_));
    }
    if (mode_ == StreamMode::ordered && !open_.empty()) return "a scan is under way";
    return {};
}

std::string StreamState::refusal() const {
    std::string standing = standing_refusal();
    if (!standing.empty()) return standing;
    if (!open_.empty()) return "a scan is under way";
    if (mode_ == StreamMode::unordered && !quiescent_) {
        return "the last scan did not find the disk quiescent, or writes followed it: this tracker "
               "does not see the order of writes";
    }
    return {};
}

std::string StreamState::state() const {
    if (!ever_scanned_) return "initial sync";
    return standing_refusal().empty() ? "protected" : "fuzzy";
}

std::string StreamState::cause() const { return standing_refusal(); }

std::string StreamState::serialize() const {
    nlohmann::json open = nlohmann::json::array();
    for (const OpenScan& scan : open_)
        open.push_back({{"scan", scan.scan}, {"whole", scan.whole}, {"covers", scan.covers}});
    return nlohmann::json{{"version", 1},
                          {"disk_bytes", disk_bytes_},
                          {"mode", unsigned(mode_)},
                          {"active", active_},
                          {"ever_scanned", ever_scanned_},
                          {"quiescent", quiescent_},
                          {"needs_scan", needs_scan_},
                          {"open", open}}
        .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<StreamState> StreamState::parse(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        if (json.at("version").get<unsigned>() != 1) {
            return fail(ErrorKind::operator_needed,
                        "stream state: version {} is not known; it was written by a newer server",
                        json.at("version").get<unsigned>());
        }
        StreamState state;
        state.disk_bytes_ = json.at("disk_bytes").get<uint64_t>();
        state.mode_ = StreamMode(json.at("mode").get<uint8_t>());
        state.active_ = json.at("active").get<bool>();
        state.ever_scanned_ = json.at("ever_scanned").get<bool>();
        state.quiescent_ = json.at("quiescent").get<bool>();
        state.needs_scan_ = json.at("needs_scan").get<std::string>();
        for (const auto& scan : json.at("open")) {
            state.open_.push_back({scan.at("scan").get<uint64_t>(), scan.at("whole").get<bool>(),
                                   scan.at("covers").get<bool>()});
        }
        return state;
    } catch (const nlohmann::json::exception& error) {
        return fail(ErrorKind::corrupt, "stream state '{}': {}", text.substr(0, 200), error.what());
    }
}

}  // namespace herald::vault
