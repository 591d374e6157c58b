// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/disk_bounds.h"

#include <algorithm>

namespace herald::hrl_tool {

using namespace herald::hrl;

void DiskBounds::begin(const Journal& journal, uint64_t first_position) {
    counts_ = first_position <= until_;
    file_ = journal.facts().name;
    sizes_.clear();
    by_position_ =
        !journal.segment() || journal.segment()->header().order == RecordOrder::by_position;
    if (!journal.facts().disk_bytes) return;
    sizes_.push_back({0, *journal.facts().disk_bytes});
    if (counts_) disk_bytes_max_ = std::max(disk_bytes_max_, sizes_.front().disk_bytes);
}

uint64_t DiskBounds::disk_bytes_at(uint64_t position) const {
    const auto after = std::ranges::upper_bound(sizes_, position, {}, &Size::position);
    return std::prev(after)->disk_bytes;
}

Result<void> DiskBounds::add(const Record& record) {
    if (!counts_ || record.position > until_) return {};
    switch (record.kind) {
        case RecordKind::write:
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
            break;
        case RecordKind::resize:
            if (by_position_) sizes_.clear();
            if (sizes_.size() > kResizesMax) {
                return fail(ErrorKind::operator_needed, "it has more than {} resizes", kResizesMax);
            }
            sizes_.push_back({by_position_ ? 0 : record.position, record.length});
            disk_bytes_max_ = std::max(disk_bytes_max_, record.length);
            return {};
        default:
            return {};
    }
    const uint64_t end = record.offset + record.length;
    end_ = std::max(end_, end);
    if (sizes_.empty()) return {};
    const uint64_t disk_bytes = disk_bytes_at(record.position);
    if (end <= disk_bytes) return {};
    if (outside_++ == 0) {
        problem_file_ = file_;
        problem_ = fmt::format("record {} covers bytes {} to {} of a disk that has {}",
                               record.position, record.offset, end, disk_bytes);
    }
    return {};
}

}  // namespace herald::hrl_tool
