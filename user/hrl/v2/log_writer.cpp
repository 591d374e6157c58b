// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/log_writer.h"

#include <algorithm>

#include "herald/limits.h"
#include "user/hrl/v2/checksum.h"

namespace herald::hrl::v2 {

LogWriter::LogWriter(ByteSink& sink, const LogHeader& header, EntryOrder order)
    : sink_(&sink), header_(header), order_(order) {
    header_.end_offset = 0;
    header_.entry_count = 0;
    header_.original_bytes = kHeaderBytes + header_.metadata_bytes;
    header_.current_bytes = header_.original_bytes;
}

Result<LogWriter> LogWriter::open(ByteSink& sink, const LogHeader& header, EntryOrder order) {
    HERALD_ASSERT(sink.size() == 0);
    LogWriter writer(sink, header, order);
    // What a reader would refuse is not written.
    const LogHeaderDisk disk = encode_header(writer.header_);
    auto checked = decode_header(disk);
    if (!checked) return pass(checked);
    auto written = sink.append(std::as_bytes(std::span(&disk, 1)));
    if (!written) return pass(written);
    // An empty block first, as Hyper-V has it.
    written = writer.write_block();
    if (!written) return pass(written);
    return writer;
}

Result<void> LogWriter::append(uint64_t byte_offset, ByteView data, uint32_t time, bool unchecked) {
    if (data.empty() || data.size() % HERALD_SECTOR_BYTES != 0 ||
        data.size() > HERALD_RECORD_DATA_BYTES_MAX || byte_offset % HERALD_SECTOR_BYTES != 0 ||
        byte_offset > HERALD_DISK_BYTES_MAX || data.size() > HERALD_DISK_BYTES_MAX - byte_offset) {
        return fail(ErrorKind::operator_needed, "no entry of a replica log can hold {} bytes at {}",
                    data.size(), byte_offset);
    }
    auto written = sink_->append(data);
    if (!written) return written;
    const uint32_t checksum = unchecked ? 0 : checksum_of(data);
    entries_.push_back({byte_offset, uint32_t(data.size()), time, checksum});
    header_.entry_count += 1;
    header_.modified_time = std::max(header_.modified_time, time);
    if (entries_.size() + 1 < entry_slots(header_.metadata_bytes)) return {};
    return write_block();
}

Result<void> LogWriter::write_block() {
    const uint64_t at = sink_->size();
    const uint64_t distance_back = last_block_ == 0 ? 0 : at - last_block_;
    auto written =
        sink_->append(encode_metadata(distance_back, entries_, order_, header_.metadata_bytes));
    if (!written) return written;
    last_block_ = at;
    entries_.clear();
    return {};
}

Result<LogHeader> LogWriter::finish() {
    if (!entries_.empty()) {
        auto written = write_block();
        if (!written) return pass(written);
    }
    // The end may be named only when everything before it is durable.
    auto synced = sink_->sync();
    if (!synced) return pass(synced);
    header_.end_offset = sink_->size();
    header_.current_bytes = sink_->size();
    const LogHeaderDisk disk = encode_header(header_);
    auto closed = sink_->replace(0, std::as_bytes(std::span(&disk, 1)));
    if (!closed) return pass(closed);
    synced = sink_->sync();
    if (!synced) return pass(synced);
    return header_;
}

}  // namespace herald::hrl::v2
