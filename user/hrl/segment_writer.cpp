// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_writer.h"

#include <lz4.h>

#include "user/base/digest.h"
#include "user/hrl/block_summary.h"
#include "user/hrl/buffer.h"
#include "user/hrl/layout.h"
#include "user/hrl/sealed_context.h"

namespace herald::hrl {

namespace {

// What a segment takes when nothing compresses, and when it does at about 2 : 1, its last block not
// yet. Most do: beginning with the smaller one spares them the copy that gives the rest back.
size_t full_bytes(uint64_t raw_bytes) { return raw_bytes + raw_bytes / 8; }
size_t half_bytes(uint64_t raw_bytes) { return full_bytes(raw_bytes) / 8 * 5; }

SegmentHeaderDisk to_disk(const SegmentHeader& header) {
    SegmentHeaderDisk disk{};
    disk.magic = kSegmentMagic;
    disk.version = kVersion;
    disk.header_bytes = sizeof disk;
    disk.block_bytes = header.block_bytes;
    disk.features_required = header.sealed_by == SealedBy::nobody ? 0 : kFeatureSealed;
    disk.record_order = uint8_t(header.order);
    disk.contents = uint8_t(header.contents);
    disk.granule_log2 = header.granule_log2;
    disk.sealed_by = uint8_t(header.sealed_by);
    disk.machine = header.machine.bytes;
    disk.disk = header.disk.bytes;
    disk.segment = header.segment.bytes;
    disk.previous_segment = header.previous_segment.bytes;
    disk.epoch = header.epoch;
    disk.first_position = header.first_position;
    disk.disk_bytes = header.disk_bytes;
    disk.created_ns = header.created_ns;
    disk.key_id = header.key_id.bytes;
    disk.seal = header.seal.bytes;
    return disk;
}

// LZ4 must save a sixteenth: below that, reading it back costs more than the bytes are worth.
size_t compressed_bytes_max(size_t raw_bytes) {
    return raw_bytes - raw_bytes / 16 - (raw_bytes > 0 ? 1 : 0);
}

// Returns how many of the bytes of `target` were taken; 0 when `raw` does not fit.
size_t compress(ByteView raw, ByteSpan target) {
    if (raw.empty()) return 0;
    const int size = LZ4_compress_default(reinterpret_cast<const char*>(raw.data()),
                                          reinterpret_cast<char*>(target.data()), int(raw.size()),
                                          int(target.size()));
    return size_t(std::max(size, 0));
}

}  // namespace

struct SegmentWriter::State {
    State(const SegmentHeader& of, uint64_t bytes)
        : header(of), raw_bytes_expected(bytes), order(of) {
        header.features_optional = 0;
    }
    SegmentHeader header;
    const uint64_t raw_bytes_expected;
    Result<void> header_valid;
    std::optional<seal::FileSealer> sealer;
    OrderCheck order;
    Bytes out;              // the file from byte out_base on
    uint64_t out_base = 0;  // what take() took
    // Room for the open block's header lies at the end of `out`. The data of its records lies
    // behind it when the block before did not compress, so that it is where it belongs already; in
    // `gathered` when it did, where it stays in the processor's cache and is compressed from there
    // to its place. The headers of its records wait apart until it is sealed: between two runs of
    // data a header would be a match for LZ4, which makes it search what follows with care again
    // (measured on noise in 4 KiB records: half of the speed).
    size_t block_at = 0;  // in `out`
    bool in_place = false;
    Bytes gathered;
    std::vector<RecordHeaderDisk> headers;
    Bytes payloads;  // of a sealed file: what stays plain waits apart, too
    LayerPart part = LayerPart::markers;
    Buffer packed;  // where a block in place is compressed to
    IndexEntryDisk summary{};
    std::vector<IndexEntryDisk> index;
    uint64_t chain = 0;
    uint64_t last_position = 0;  // the highest there was
    uint64_t raw_bytes = 0;
    uint64_t records = 0;

    Bytes& open_data() { return in_place ? out : gathered; }
    void begin_file();
    void begin_block();
    void close_block();
    uint8_t store_plain_block();
    uint8_t store_sealed_block(BlockHeaderDisk& disk);
};

void SegmentWriter::State::begin_file() {
    SegmentHeaderDisk disk = to_disk(header);
    if (sealer) {
        const ByteView covered[] = {
            disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, header_tag))};
        disk.header_tag = sealer->seal_part({seal::SealUse::header, 0}, covered, {}, {});
    }
    disk.checksum = xxh3_64(disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, checksum)));
    chain = disk.checksum;
    out.reserve(half_bytes(raw_bytes_expected));
    out.append(disk_bytes_of(disk));
}

void SegmentWriter::State::begin_block() {
    block_at = out.size();
    out.resize(out.size() + sizeof(BlockHeaderDisk) + (sealer ? sizeof(SealHeaderDisk) : 0));
}

// Leaves the stored bytes behind the block's header; returns the codec.
uint8_t SegmentWriter::State::store_plain_block() {
    open_data().append(std::as_bytes(std::span(headers)));
    const size_t stored_at = block_at + sizeof(BlockHeaderDisk);
    size_t size = 0;
    if (in_place) {
        const ByteView raw = ByteView(out).subspan(stored_at);
        const ByteSpan target = packed.need(compressed_bytes_max(raw.size()));
        size = compress(raw, target);
        if (size > 0) {
            std::memcpy(out.data() + stored_at, target.data(), size);
            out.resize(stored_at + size);
        }
    } else {
        out.resize_for_overwrite(stored_at + compressed_bytes_max(gathered.size()));
        size = compress(gathered, ByteSpan(out).subspan(stored_at));
        out.resize(stored_at + size);
        if (size == 0) out.append(gathered);
        gathered.clear();
    }
    in_place = size == 0;
    return uint8_t(in_place ? Codec::raw : Codec::lz4);
}

// The same for a sealed file; needs all of `disk` but codec and stored_bytes, and sets these.
uint8_t SegmentWriter::State::store_sealed_block(BlockHeaderDisk& disk) {
    payloads.append(std::as_bytes(std::span(headers)));
    const ByteView plain = payloads;
    const size_t data_at = block_at + sizeof(BlockHeaderDisk) + sizeof(SealHeaderDisk);
    const ByteView raw = in_place ? ByteView(out).subspan(data_at) : ByteView(gathered);
    const ByteSpan target = packed.need(compressed_bytes_max(raw.size()));
    const size_t size = compress(raw, target);
    const ByteView clear = size > 0 ? ByteView(target.first(size)) : raw;
    out.resize_for_overwrite(data_at + clear.size());
    const ByteSpan data = ByteSpan(out).subspan(data_at);
    SealHeaderDisk sealed{};
    sealed.segment = header.segment.bytes;
    sealed.seal = header.seal.bytes;
    sealed.index = disk.index;
    sealed.plain_bytes = uint32_t(plain.size());
    disk.codec = uint8_t(size > 0 ? Codec::lz4 : Codec::raw);
    disk.stored_bytes = uint32_t(kSealBytes + data.size() + plain.size());
    const SealedContext context(header.machine, header.disk, disk_bytes_of(disk),
                                disk_bytes_of(sealed), plain);
    const seal::AuthTag tag =
        sealer->seal_part({seal::SealUse::block, sealed.index}, context.parts(), clear, data);
    std::memcpy(out.data() + block_at + sizeof disk, &sealed, sizeof sealed);
    out.append(plain);
    out.append(tag);
    payloads.clear();
    gathered.clear();
    in_place = size == 0;
    return disk.codec;
}

void SegmentWriter::State::close_block() {
    BlockHeaderDisk disk{};
    disk.magic = kBlockMagic;
    disk.index = uint32_t(index.size());
    disk.first_position = summary.first_position;
    disk.record_count = summary.record_count;
    disk.raw_bytes = summary.raw_bytes;
    disk.chain = chain;
    disk.codec = sealer ? store_sealed_block(disk) : store_plain_block();
    disk.stored_bytes = uint32_t(out.size() - block_at - sizeof disk);
    std::memcpy(out.data() + block_at, &disk, sizeof disk);
    summary.file_offset = out_base + block_at;
    summary.stored_bytes = disk.stored_bytes;
    chain = xxh3_64(ByteView(out).subspan(block_at));
    out.append(disk_bytes_of(chain));
    // Noise from the first block on: most likely to the last. Now the move costs one block, later
    // more than half of the segment.
    if (index.empty() && in_place) out.reserve(full_bytes(raw_bytes_expected));
    index.push_back(summary);
    summary = {};
    headers.clear();
}

SegmentWriter::SegmentWriter(const SegmentHeader& header, uint64_t raw_bytes)
    : state_(std::make_unique<State>(header, raw_bytes)) {
    State& s = *state_;
    s.header_valid = validate(header);
    if (s.header_valid && header.sealed_by != SealedBy::nobody) {
        s.header_valid = fail(ErrorKind::operator_needed, "segment {} cannot be sealed: no key",
                              to_string(header.segment));
    }
    s.begin_file();
}

SegmentWriter::SegmentWriter(const SegmentHeader& header, const Sealing& sealing)
    : state_(std::make_unique<State>(header, HERALD_SEGMENT_BYTES_DEFAULT)) {
    State& s = *state_;
    s.header_valid = validate(header);
    HERALD_ASSERT(sealing.key && sealing.by != SealedBy::nobody);
    if (s.header_valid && sealing.key->machine != header.machine) {
        s.header_valid = fail(
            ErrorKind::operator_needed,
            "segment {} of machine {} cannot be sealed with the key of machine {}",
            to_string(header.segment), to_string(header.machine), to_string(sealing.key->machine));
    }
    s.sealer.emplace(*sealing.key, seal::FileIds{header.machine, header.disk, header.segment},
                     sealing.seal);
    s.header.sealed_by = sealing.by;
    s.header.key_id = s.sealer->key_id();
    s.header.seal = s.sealer->seal();
    s.begin_file();
}

SegmentWriter::SegmentWriter(SegmentWriter&&) noexcept = default;
SegmentWriter& SegmentWriter::operator=(SegmentWriter&&) noexcept = default;
SegmentWriter::~SegmentWriter() = default;

Result<void> SegmentWriter::append(const Record& record) {
    State& s = *state_;
    if (!s.header_valid) return s.header_valid;
    if (s.header.contents == Contents::segment && record.position != next_position()) {
        return fail(ErrorKind::operator_needed,
                    "record {} cannot be appended to segment {}: record {} comes next",
                    record.position, to_string(s.header.segment), next_position());
    }
    auto valid = validate(record);
    if (!valid) return valid;
    if (s.index.size() >= HERALD_HRL_BLOCKS_MAX - 1) {
        return fail(ErrorKind::operator_needed,
                    "segment {} is full: it must be finished at {} records",
                    to_string(s.header.segment), s.records);
    }
    const auto part = s.order.take(record);
    if (!part) return pass(part);

    const size_t size = sizeof(RecordHeaderDisk) + record.data.size();
    if (!s.headers.empty() &&
        (s.summary.raw_bytes + size > s.header.block_bytes || *part != s.part)) {
        s.close_block();
    }
    // Not by doubling: a segment hardly ever outgrows this.
    if (s.out.size() + s.gathered.size() + size > half_bytes(s.raw_bytes_expected)) {
        s.out.reserve(full_bytes(s.raw_bytes_expected));
    }
    if (s.headers.empty()) s.begin_block();
    s.part = *part;
    const bool apart = s.sealer && record.kind != RecordKind::write;
    (apart ? s.payloads : s.open_data()).append(record.data);
    RecordHeaderDisk disk{};
    disk.kind = uint8_t(record.kind);
    disk.data_bytes = uint32_t(record.data.size());
    disk.position = record.position;
    disk.offset = record.offset;
    disk.length = record.length;
    disk.time_ns = record.time_ns;
    s.headers.push_back(disk);
    add_to_summary(s.summary, record, disk.data_bytes, *part);
    s.raw_bytes += size;
    s.records += 1;
    s.last_position = std::max(s.last_position, record.position);
    return {};
}

uint64_t SegmentWriter::raw_bytes() const { return state_->raw_bytes; }
uint64_t SegmentWriter::records() const { return state_->records; }
uint32_t SegmentWriter::blocks() const { return uint32_t(state_->index.size()); }
uint64_t SegmentWriter::next_position() const {
    return state_->records == 0 ? state_->header.first_position : state_->last_position + 1;
}

Bytes SegmentWriter::take() {
    State& s = *state_;
    const size_t done = s.headers.empty() ? s.out.size() : s.block_at;
    // Whoever asks after every record must not have the open block copied every time.
    if (done == 0) return {};
    Bytes open(s.out.begin() + ptrdiff_t(done), s.out.end());
    Bytes taken = std::exchange(s.out, std::move(open));
    taken.resize(done);
    s.out_base += done;
    s.block_at = 0;
    return taken;
}

Result<Segment> SegmentWriter::finish(uint64_t covered_to) && {
    State& s = *state_;
    if (!s.header_valid) return pass(s.header_valid);
    if (s.records == 0) {
        return fail(ErrorKind::operator_needed, "segment {} cannot be finished: it has no records",
                    to_string(s.header.segment));
    }
    if (covered_to != 0 &&
        (covered_to < s.last_position || covered_to > HERALD_POSITION_MAX ||
         (s.header.contents == Contents::segment && covered_to != s.last_position))) {
        return fail(ErrorKind::operator_needed,
                    "segment {} cannot end at {}: its last record is {}",
                    to_string(s.header.segment), covered_to, s.last_position);
    }
    s.close_block();

    const size_t index_at = s.out.size();
    IndexHeaderDisk index{};
    index.magic = kIndexMagic;
    index.entry_count = uint32_t(s.index.size());
    index.chain = s.chain;
    s.out.append(disk_bytes_of(index));
    s.out.append(std::as_bytes(std::span(s.index)));
    const uint64_t index_checksum = xxh3_64(ByteView(s.out).subspan(index_at));
    s.out.append(disk_bytes_of(index_checksum));

    FooterDisk footer{};
    footer.magic = kFooterMagic;
    footer.block_count = index.entry_count;
    footer.index_offset = s.out_base + index_at;
    footer.last_position = covered_to != 0 ? covered_to : s.last_position;
    footer.record_count = s.records;
    footer.raw_bytes = s.raw_bytes;
    footer.chain = s.chain;
    footer.file_bytes = s.out_base + s.out.size() + sizeof footer + (s.sealer ? kTailTagBytes : 0);
    footer.checksum = xxh3_64(disk_bytes_of(footer).first(offsetof(FooterDisk, checksum)));
    if (s.sealer) {
        const ByteView covered[] = {ByteView(s.out).subspan(index_at), disk_bytes_of(footer)};
        const auto tag = s.sealer->seal_part({seal::SealUse::tail, 0}, covered, {}, {});
        s.out.append(tag);
        s.out.append(disk_bytes_of(xxh3_64(tag)));
    }
    s.out.append(disk_bytes_of(footer));

    Segment segment;
    segment.header = s.header;
    segment.last_position = footer.last_position;
    segment.raw_bytes = s.raw_bytes;
    segment.file_bytes = footer.file_bytes;
    // A segment closed by age is small and may wait for its acknowledgement: give the rest back.
    if (s.out.size() < s.out.capacity() / 2) s.out.shrink_to_fit();
    segment.bytes = std::move(s.out);
    return segment;
}

}  // namespace herald::hrl
