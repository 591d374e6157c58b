// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_frame.h"

#include "user/base/digest.h"

namespace herald::hrl {

namespace {

template <class T>
Result<T> read_struct(ByteSource& source, uint64_t offset) {
    T value;
    auto read = source.read(offset, std::as_writable_bytes(std::span(&value, 1)));
    if (!read) return pass(read);
    return value;
}

Result<FooterDisk> read_footer(ByteSource& source) {
    const uint64_t size = source.size();
    if (size < sizeof(SegmentHeaderDisk) + sizeof(FooterDisk)) {
        return fail(ErrorKind::corrupt, "it has no footer");
    }
    auto read = read_struct<FooterDisk>(source, size - sizeof(FooterDisk));
    if (!read) return read;
    const FooterDisk& footer = *read;
    if (footer.magic != kFooterMagic) return fail(ErrorKind::corrupt, "it has no footer");
    const ByteView checked = disk_bytes_of(footer).first(offsetof(FooterDisk, checksum));
    if (footer.checksum != xxh3_64(checked)) {
        return fail(ErrorKind::corrupt, "its footer's checksum is wrong");
    }
    if (footer.file_bytes != size) {
        return fail(ErrorKind::corrupt, "its footer speaks of {} bytes, there are {}",
                    footer.file_bytes, size);
    }
    if (footer.block_count == 0 || footer.block_count > HERALD_HRL_BLOCKS_MAX) {
        return fail(ErrorKind::corrupt, "its footer speaks of {} blocks", footer.block_count);
    }
    const uint64_t behind = index_file_bytes(footer.block_count) + sizeof(FooterDisk);
    if (behind > size || footer.index_offset != size - behind) {
        return fail(ErrorKind::corrupt, "its footer points to an index at byte {}",
                    footer.index_offset);
    }
    return read;
}

// Entries must lie one behind the other, in file and stream, and add up to the footer's word.
Result<void> check_entries(const Tail& tail, const SegmentHeader& header) {
    uint64_t file_offset = sizeof(SegmentHeaderDisk);
    uint64_t position = header.first_position;
    uint64_t raw_bytes = 0;
    for (const IndexEntryDisk& entry : tail.entries) {
        if (entry.file_offset != file_offset || entry.first_position != position ||
            entry.record_count == 0 || entry.record_count > UINT64_MAX - position) {
            return fail(ErrorKind::corrupt, "its index entry {} does not follow from the last",
                        &entry - tail.entries.data());
        }
        file_offset += block_file_bytes(entry.stored_bytes);
        position += entry.record_count;
        raw_bytes += entry.raw_bytes;
    }
    const FooterDisk& footer = tail.footer;
    if (file_offset != footer.index_offset || position - 1 != footer.last_position ||
        position - header.first_position != footer.record_count || raw_bytes != footer.raw_bytes) {
        return fail(ErrorKind::corrupt, "its footer and index do not agree");
    }
    return {};
}

}  // namespace

Result<CheckedHeader> read_header(ByteSource& source) {
    const std::string name = source.name();
    if (source.size() < sizeof(SegmentHeaderDisk)) {
        return fail(ErrorKind::corrupt, "{}: not a segment: {} bytes are fewer than its header has",
                    name, source.size());
    }
    auto read = read_struct<SegmentHeaderDisk>(source, 0);
    if (!read) return pass(read);
    const SegmentHeaderDisk& disk = *read;
    if (disk.magic != kSegmentMagic) {
        return fail(ErrorKind::corrupt, "{}: not a segment: it begins with other bytes", name);
    }
    const ByteView checked = disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, checksum));
    if (disk.checksum != xxh3_64(checked)) {
        return fail(ErrorKind::corrupt, "{}: header at byte 0: its checksum is wrong", name);
    }
    if (disk.version != kVersion) {
        return fail(ErrorKind::operator_needed, "{}: format version {}; this program reads {}",
                    name, disk.version, kVersion);
    }
    if (const uint32_t unknown = disk.features_required & ~kFeaturesKnown; unknown != 0) {
        return fail(ErrorKind::operator_needed,
                    "{}: needs features {:#x} that this program does not have; use a newer one",
                    name, unknown);
    }
    if (disk.record_order == uint8_t(RecordOrder::by_block_then_position)) {
        return fail(ErrorKind::operator_needed,
                    "{}: its records are ordered by block, which this program does not read", name);
    }
    if (disk.record_order != uint8_t(RecordOrder::by_position) ||
        disk.header_bytes != sizeof disk || !all_zero(std::as_bytes(std::span(disk.reserved_a))) ||
        !all_zero(disk.key_id) || !all_zero(std::as_bytes(std::span(disk.reserved_b)))) {
        return fail(ErrorKind::corrupt, "{}: header at byte 0: a reserved field is set", name);
    }
    SegmentHeader header;
    header.machine.bytes = disk.machine;
    header.disk.bytes = disk.disk;
    header.segment.bytes = disk.segment;
    header.previous_segment.bytes = disk.previous_segment;
    header.epoch = disk.epoch;
    header.first_position = disk.first_position;
    header.disk_bytes = disk.disk_bytes;
    header.created_ns = disk.created_ns;
    header.block_bytes = disk.block_bytes;
    auto valid = validate(header);
    if (!valid) return pass(valid, name);
    return CheckedHeader{header, disk.checksum};
}

Result<Tail> read_tail(ByteSource& source, const SegmentHeader& header) {
    auto footer = read_footer(source);
    if (!footer) return pass(footer);
    Tail tail;
    tail.footer = *footer;
    const ByteSpan bytes = tail.index_bytes.need(index_file_bytes(footer->block_count));
    auto read = source.read(footer->index_offset, bytes);
    if (!read) return pass(read);
    const size_t checked = bytes.size() - kChecksumBytes;
    const auto index = load_disk<IndexHeaderDisk>(bytes.data());
    if (load_le<uint64_t>(bytes.data() + checked) != xxh3_64(bytes.first(checked))) {
        return fail(ErrorKind::corrupt, "its index's checksum is wrong");
    }
    if (index.magic != kIndexMagic || index.entry_count != footer->block_count ||
        index.chain != footer->chain) {
        return fail(ErrorKind::corrupt, "its index is not the one its footer belongs to");
    }
    tail.entries = {reinterpret_cast<const IndexEntryDisk*>(bytes.data() + sizeof index),
                    index.entry_count};
    auto agreed = check_entries(tail, header);
    if (!agreed) return pass(agreed);
    return tail;
}

}  // namespace herald::hrl
