// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_writer.h"

#include <lz4.h>

#include "user/base/digest.h"
#include "user/hrl/block_summary.h"
#include "user/hrl/buffer.h"
#include "user/hrl/layout.h"

namespace herald::hrl {

namespace {

// What a full segment takes when nothing compresses, and when it does at about 2 : 1, its last
// block not yet. Most do: beginning with the smaller one spares them the copy that gives the rest
// back.
constexpr size_t kFullBytes = HERALD_SEGMENT_BYTES_DEFAULT + (HERALD_SEGMENT_BYTES_DEFAULT >> 3);
constexpr size_t kCompressedBytes = kFullBytes / 8 * 5;

void append_bytes(Bytes& to, ByteView from) { to.insert(to.end(), from.begin(), from.end()); }

SegmentHeaderDisk to_disk(const SegmentHeader& header) {
    SegmentHeaderDisk disk{};
    disk.magic = kSegmentMagic;
    disk.version = kVersion;
    disk.header_bytes = sizeof disk;
    disk.block_bytes = header.block_bytes;
    disk.record_order = uint8_t(RecordOrder::by_position);
    disk.machine = header.machine.bytes;
    disk.disk = header.disk.bytes;
    disk.segment = header.segment.bytes;
    disk.previous_segment = header.previous_segment.bytes;
    disk.epoch = header.epoch;
    disk.first_position = header.first_position;
    disk.disk_bytes = header.disk_bytes;
    disk.created_ns = header.created_ns;
    disk.checksum = xxh3_64(disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, checksum)));
    return disk;
}

}  // namespace

Result<void> validate(const SegmentHeader& header) {
    const auto refuse = [](auto format, uint64_t value) -> Result<void> {
        return fail(ErrorKind::corrupt, "segment header: {} {}", format, value);
    };
    if (header.block_bytes < kBlockBytesMin || header.block_bytes > HERALD_HRL_BLOCK_BYTES_MAX) {
        return refuse("blocks may not have the size", header.block_bytes);
    }
    if (header.first_position == 0) return refuse("no record has the position", 0);
    if (header.disk_bytes > HERALD_DISK_BYTES_MAX || header.disk_bytes % HERALD_SECTOR_BYTES != 0) {
        return refuse("no disk has the size", header.disk_bytes);
    }
    return {};
}

struct SegmentWriter::State {
    SegmentHeader header;
    Result<void> header_valid;
    Bytes out;
    // The open block, not yet compressed, lies at the end of `out`: room for its header, then the
    // data of its records; what does not compress is where it belongs already. The headers of its
    // records wait apart until it is sealed: between two runs of data a header would be a match
    // for LZ4, which makes it search what follows with care again (measured on noise in 4 KiB
    // records: half of the speed).
    size_t block_offset = 0;
    std::vector<RecordHeaderDisk> headers;
    Buffer packed;  // where a block is compressed to
    IndexEntryDisk summary{};
    std::vector<IndexEntryDisk> index;
    uint64_t chain = 0;
    uint64_t next_position = 0;
    uint64_t raw_bytes = 0;
    uint64_t records = 0;

    void seal_block();
};

void SegmentWriter::State::seal_block() {
    append_bytes(out, std::as_bytes(std::span(headers)));
    const size_t stored_offset = block_offset + sizeof(BlockHeaderDisk);
    const ByteView raw = ByteView(out).subspan(stored_offset);
    // LZ4 must save a sixteenth: below that, reading it back costs more than the bytes are worth.
    const size_t stored_max = raw.size() - raw.size() / 16 - 1;
    const ByteSpan target = packed.need(stored_max);
    const int packed_bytes = LZ4_compress_default(reinterpret_cast<const char*>(raw.data()),
                                                  reinterpret_cast<char*>(target.data()),
                                                  int(raw.size()), int(target.size()));
    const bool use_lz4 = packed_bytes > 0;
    BlockHeaderDisk disk{};
    disk.magic = kBlockMagic;
    disk.index = uint32_t(index.size());
    disk.first_position = summary.first_position;
    disk.record_count = summary.record_count;
    disk.raw_bytes = uint32_t(raw.size());
    disk.stored_bytes = uint32_t(use_lz4 ? size_t(packed_bytes) : raw.size());
    disk.codec = uint8_t(use_lz4 ? Codec::lz4 : Codec::raw);
    disk.chain = chain;

    if (use_lz4) {
        std::memcpy(out.data() + stored_offset, target.data(), disk.stored_bytes);
        out.resize(stored_offset + disk.stored_bytes);
    }
    std::memcpy(out.data() + block_offset, &disk, sizeof disk);
    summary.file_offset = block_offset;
    summary.stored_bytes = disk.stored_bytes;
    chain = xxh3_64(ByteView(out).subspan(block_offset));
    append_bytes(out, disk_bytes_of(chain));
    index.push_back(summary);
    summary = {};
    headers.clear();
}

SegmentWriter::SegmentWriter(const SegmentHeader& header) : state_(std::make_unique<State>()) {
    state_->header = header;
    state_->header_valid = validate(header);
    state_->next_position = header.first_position;
    const SegmentHeaderDisk disk = to_disk(header);
    state_->chain = disk.checksum;
    state_->out.reserve(kCompressedBytes);
    append_bytes(state_->out, disk_bytes_of(disk));
}

SegmentWriter::SegmentWriter(SegmentWriter&&) noexcept = default;
SegmentWriter& SegmentWriter::operator=(SegmentWriter&&) noexcept = default;
SegmentWriter::~SegmentWriter() = default;

Result<void> SegmentWriter::append(const Record& record) {
    State& s = *state_;
    if (!s.header_valid) return s.header_valid;
    if (record.position != s.next_position) {
        return fail(ErrorKind::operator_needed,
                    "record {} cannot be appended to segment {}: record {} comes next",
                    record.position, to_string(s.header.segment), s.next_position);
    }
    auto valid = validate(record);
    if (!valid) return valid;
    if (s.records >= HERALD_SEGMENT_RECORDS_MAX || s.index.size() >= HERALD_HRL_BLOCKS_MAX - 1) {
        return fail(ErrorKind::operator_needed,
                    "segment {} is full: it must be finished at {} records",
                    to_string(s.header.segment), s.records);
    }

    const size_t size = sizeof(RecordHeaderDisk) + record.data.size();
    if (!s.headers.empty() && s.summary.raw_bytes + size > s.header.block_bytes) s.seal_block();
    // Not by doubling: a segment hardly ever outgrows this.
    if (s.out.size() + size > kCompressedBytes) s.out.reserve(kFullBytes);
    if (s.headers.empty()) {
        s.block_offset = s.out.size();
        append_bytes(s.out, disk_bytes_of(BlockHeaderDisk{}));
    }
    append_bytes(s.out, record.data);
    RecordHeaderDisk disk{};
    disk.kind = uint8_t(record.kind);
    disk.data_bytes = uint32_t(record.data.size());
    disk.position = record.position;
    disk.offset = record.offset;
    disk.length = record.length;
    disk.time_ns = record.time_ns;
    s.headers.push_back(disk);
    add_to_summary(s.summary, record);
    s.raw_bytes += size;
    s.records += 1;
    s.next_position += 1;
    return {};
}

uint64_t SegmentWriter::raw_bytes() const { return state_->raw_bytes; }
uint64_t SegmentWriter::records() const { return state_->records; }
uint64_t SegmentWriter::next_position() const { return state_->next_position; }

Result<Segment> SegmentWriter::finish() && {
    State& s = *state_;
    if (!s.header_valid) return pass(s.header_valid);
    if (s.records == 0) {
        return fail(ErrorKind::operator_needed, "segment {} cannot be finished: it has no records",
                    to_string(s.header.segment));
    }
    s.seal_block();

    const uint64_t index_offset = s.out.size();
    IndexHeaderDisk index{};
    index.magic = kIndexMagic;
    index.entry_count = uint32_t(s.index.size());
    index.chain = s.chain;
    append_bytes(s.out, disk_bytes_of(index));
    append_bytes(s.out, std::as_bytes(std::span(s.index)));
    const uint64_t index_checksum = xxh3_64(ByteView(s.out).subspan(index_offset));
    append_bytes(s.out, disk_bytes_of(index_checksum));

    FooterDisk footer{};
    footer.magic = kFooterMagic;
    footer.block_count = index.entry_count;
    footer.index_offset = index_offset;
    footer.last_position = s.next_position - 1;
    footer.record_count = s.records;
    footer.raw_bytes = s.raw_bytes;
    footer.chain = s.chain;
    footer.file_bytes = s.out.size() + sizeof footer;
    footer.checksum = xxh3_64(disk_bytes_of(footer).first(offsetof(FooterDisk, checksum)));
    append_bytes(s.out, disk_bytes_of(footer));

    Segment segment;
    segment.header = s.header;
    segment.last_position = footer.last_position;
    segment.raw_bytes = s.raw_bytes;
    // A segment closed by age is small and may wait for its acknowledgement: give the rest back.
    if (s.out.size() < s.out.capacity() / 2) s.out.shrink_to_fit();
    segment.bytes = std::move(s.out);
    return segment;
}

}  // namespace herald::hrl
