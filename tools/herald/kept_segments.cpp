// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/kept_segments.h"

#include <algorithm>

namespace herald::cli {

Result<Bytes> KeptSegments::fetch(const Uuid& disk, const wire::SegmentInfo& segment) {
    const auto found =
        std::ranges::lower_bound(kept_, segment.first_position, {}, &Kept::first_position);
    if (found != kept_.end() && found->segment == segment.segment) return found->bytes;
    auto bytes = provider_->fetch(disk, segment);
    if (!bytes || found != kept_.end()) return bytes;
    if (bytes->size() > bytes_left_) {
        bytes_left_ = 0;
        return bytes;
    }
    bytes_left_ -= bytes->size();
    kept_.push_back({segment.first_position, segment.segment, *bytes});
    return bytes;
}

}  // namespace herald::cli
