// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_reader.h"

#include <lz4.h>

#include "user/base/digest.h"
#include "user/hrl/block_summary.h"
#include "user/hrl/buffer.h"
#include "user/hrl/segment_frame.h"

namespace herald::hrl {

namespace {

// The records of a block: their data one behind the other, then their headers in the same order.
struct Records {
    ByteView data;
    ByteView headers;

    // Takes the first record; its header is believed only as far as memory safety goes.
    Result<Record> take() {
        const auto disk = load_disk<RecordHeaderDisk>(headers.data());
        headers = headers.subspan(sizeof disk);
        if (disk.data_bytes > data.size()) {
            return fail(ErrorKind::corrupt, "record {} passes its block's end", disk.position);
        }
        if (disk.flags != 0 || disk.reserved != 0) {
            return fail(ErrorKind::corrupt, "record {}: a reserved field is set", disk.position);
        }
        Record record;
        record.kind = RecordKind(disk.kind);
        record.position = disk.position;
        record.offset = disk.offset;
        record.length = disk.length;
        record.time_ns = disk.time_ns;
        record.data = data.first(disk.data_bytes);
        data = data.subspan(disk.data_bytes);
        return record;
    }
};

}  // namespace

struct SegmentReader::State {
    std::unique_ptr<ByteSource> source;
    std::string name;
    SegmentHeader header;
    std::optional<Tail> tail;  // of a whole file
    std::string loss;
    std::optional<Error> failed;  // sticks: after it nothing is handed out
    bool at_end = false;

    // Where the next block is expected, and as what.
    uint64_t block_offset = sizeof(SegmentHeaderDisk);
    uint32_t block_index = 0;
    uint64_t block_position = 0;
    uint64_t chain = 0;

    Buffer stored_buffer;
    Buffer raw_buffer;
    Records records;  // of the open block, verified, not handed out yet

    uint64_t blocks_end() const { return tail ? tail->footer.index_offset : source->size(); }
    Result<ByteView> fetch(uint64_t offset, uint64_t size);
    Result<BlockHeaderDisk> read_block_header();
    Result<ByteView> unpack(const BlockHeaderDisk& disk, ByteView stored);
    Result<IndexEntryDisk> check_records(const BlockHeaderDisk& disk, Records unchecked);
    Result<void> open_block();
    Result<void> next_block();
    Result<bool> at_index();
};

Result<ByteView> SegmentReader::State::fetch(uint64_t offset, uint64_t size) {
    if (auto borrowed = source->borrow(offset, size)) return *borrowed;
    const ByteSpan to = stored_buffer.need(size);
    auto read = source->read(offset, to);
    if (!read) return pass(read);
    return ByteView(to);
}

Result<BlockHeaderDisk> SegmentReader::State::read_block_header() {
    const uint64_t left = blocks_end() - block_offset;
    if (left < block_file_bytes(0)) return fail(ErrorKind::corrupt, "it is cut");
    BlockHeaderDisk disk;
    auto read = source->read(block_offset, std::as_writable_bytes(std::span(&disk, 1)));
    if (!read) return pass(read);
    if (disk.magic != kBlockMagic) return fail(ErrorKind::corrupt, "no block begins here");
    // One record may be larger than a block; then it is alone in it.
    const uint64_t raw_max = disk.record_count == 1
                                 ? sizeof(RecordHeaderDisk) + HERALD_RECORD_DATA_BYTES_MAX
                                 : header.block_bytes;
    const bool stored_fits = disk.codec == uint8_t(Codec::raw) ? disk.stored_bytes == disk.raw_bytes
                                                               : disk.stored_bytes < disk.raw_bytes;
    if (disk.raw_bytes > std::max<uint64_t>(raw_max, header.block_bytes) ||
        disk.record_count == 0 || disk.record_count > disk.raw_bytes / sizeof(RecordHeaderDisk) ||
        !stored_fits || disk.codec > uint8_t(Codec::lz4) ||
        !all_zero(std::as_bytes(std::span(disk.reserved)))) {
        return fail(ErrorKind::corrupt, "its header is not one of a block");
    }
    if (block_file_bytes(disk.stored_bytes) > left) return fail(ErrorKind::corrupt, "it is cut");
    if (disk.index != block_index || disk.first_position != block_position ||
        disk.record_count > UINT64_MAX - disk.first_position) {
        return fail(ErrorKind::corrupt, "it is block {} at position {}, which belongs elsewhere",
                    disk.index, disk.first_position);
    }
    if (disk.chain != chain) {
        return fail(ErrorKind::corrupt, "it is not chained to what is before it");
    }
    return disk;
}

Result<ByteView> SegmentReader::State::unpack(const BlockHeaderDisk& disk, ByteView stored) {
    if (disk.codec == uint8_t(Codec::raw)) return stored;
    const ByteSpan raw = raw_buffer.need(disk.raw_bytes);
    const int size = LZ4_decompress_safe(reinterpret_cast<const char*>(stored.data()),
                                         reinterpret_cast<char*>(raw.data()), int(stored.size()),
                                         int(raw.size()));
    if (size < 0 || uint32_t(size) != disk.raw_bytes) {
        return fail(ErrorKind::corrupt, "it does not decompress");
    }
    return ByteView(raw);
}

Result<IndexEntryDisk> SegmentReader::State::check_records(const BlockHeaderDisk& disk,
                                                           Records unchecked) {
    IndexEntryDisk summary{};
    summary.file_offset = block_offset;
    summary.stored_bytes = disk.stored_bytes;
    for (uint32_t i = 0; i < disk.record_count; ++i) {
        auto record = unchecked.take();
        if (!record) return pass(record);
        if (record->position != disk.first_position + i) {
            return fail(ErrorKind::corrupt, "record {} stands where {} belongs", record->position,
                        disk.first_position + i);
        }
        auto valid = validate(*record);
        if (!valid) return pass(valid);
        add_to_summary(summary, *record);
    }
    if (!unchecked.data.empty()) {
        return fail(ErrorKind::corrupt, "{} bytes belong to none of its records",
                    unchecked.data.size());
    }
    return summary;
}

// Verifies the next block completely; only then are its records there to be handed out.
Result<void> SegmentReader::State::open_block() {
    auto disk = read_block_header();
    if (!disk) return pass(disk);
    auto bytes = fetch(block_offset, block_file_bytes(disk->stored_bytes));
    if (!bytes) return pass(bytes);
    const size_t checked = bytes->size() - kChecksumBytes;
    const uint64_t checksum = load_le<uint64_t>(bytes->data() + checked);
    // Header and body were read apart: what the checksum covers is what was looked at.
    if (checksum != xxh3_64(bytes->first(checked)) ||
        std::memcmp(bytes->data(), &*disk, sizeof *disk) != 0) {
        return fail(ErrorKind::corrupt, "its checksum is wrong");
    }
    auto raw = unpack(*disk, bytes->subspan(sizeof *disk, disk->stored_bytes));
    if (!raw) return pass(raw);
    // read_block_header() saw to it that there is room for so many.
    const size_t headers_bytes = disk->record_count * sizeof(RecordHeaderDisk);
    const Records found{raw->first(raw->size() - headers_bytes), raw->last(headers_bytes)};
    auto summary = check_records(*disk, found);
    if (!summary) return pass(summary);
    if (tail && (block_index >= tail->entries.size() || tail->entries[block_index] != *summary)) {
        return fail(ErrorKind::corrupt, "it is not what the index says of it");
    }
    records = found;
    block_offset += bytes->size();
    block_index += 1;
    block_position += disk->record_count;
    chain = checksum;
    return {};
}

Result<void> SegmentReader::State::next_block() {
    if (tail && block_offset == blocks_end()) {
        at_end = true;
        if (chain == tail->footer.chain) return {};
        return fail(ErrorKind::corrupt, "{}: its footer belongs to other blocks", name);
    }
    auto opened = open_block();
    if (opened) return {};
    // Trouble with the source is not damage of the file: say so, and let the caller try again.
    if (opened.error().kind != ErrorKind::corrupt) return opened;
    if (tail) {
        return pass(opened,
                    fmt::format("{}: block {} at byte {}", name, block_index, block_offset));
    }
    at_end = true;
    const uint64_t left = source->size() - block_offset;
    auto index_begins = at_index();
    if (!index_begins) return pass(index_begins);
    if (*index_begins) {
        loss += fmt::format("; all its blocks are there, up to record {}", block_position - 1);
    } else {
        loss += fmt::format("; its last whole record is {}, {} bytes from byte {} on are lost",
                            block_position - 1, left, block_offset);
        if (left != 0) loss += fmt::format(" (block {}: {})", block_index, opened.error().message);
    }
    return {};
}

// True when what is left of a torn file begins as the index of exactly these blocks does.
Result<bool> SegmentReader::State::at_index() {
    IndexHeaderDisk expected{};
    expected.magic = kIndexMagic;
    expected.entry_count = block_index;
    expected.chain = chain;
    IndexHeaderDisk found{};
    if (block_index == 0 || source->size() - block_offset < sizeof found) return false;
    auto read = source->read(block_offset, std::as_writable_bytes(std::span(&found, 1)));
    if (!read) return pass(read);
    return std::memcmp(&expected, &found, sizeof found) == 0;
}

SegmentReader::SegmentReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
SegmentReader::SegmentReader(SegmentReader&&) noexcept = default;
SegmentReader& SegmentReader::operator=(SegmentReader&&) noexcept = default;
SegmentReader::~SegmentReader() = default;

Result<SegmentReader> SegmentReader::open(std::unique_ptr<ByteSource> source) {
    auto header = read_header(*source);
    if (!header) return pass(header);
    auto state = std::make_unique<State>();
    state->name = source->name();
    state->header = header->header;
    state->chain = header->checksum;
    state->block_position = header->header.first_position;
    auto tail = read_tail(*source, header->header);
    if (tail) {
        state->tail = std::move(*tail);
    } else if (tail.error().kind == ErrorKind::corrupt) {
        state->loss = fmt::format("{} is not whole: {}", state->name, tail.error().message);
    } else {
        return pass(tail, state->name);
    }
    state->source = std::move(source);
    return SegmentReader(std::move(state));
}

const SegmentHeader& SegmentReader::header() const { return state_->header; }
bool SegmentReader::whole() const { return state_->tail.has_value(); }
const std::string& SegmentReader::loss() const { return state_->loss; }

std::optional<uint64_t> SegmentReader::last_position() const {
    if (!state_->tail) return std::nullopt;
    return state_->tail->footer.last_position;
}

std::span<const IndexEntryDisk> SegmentReader::blocks() const {
    if (!state_->tail) return {};
    return state_->tail->entries;
}

Result<std::optional<Record>> SegmentReader::next() {
    State& s = *state_;
    if (s.failed) return tl::unexpected<Error>(*s.failed);
    while (s.records.headers.empty()) {
        if (s.at_end) return std::optional<Record>();
        auto moved = s.next_block();
        if (!moved) {
            if (moved.error().kind == ErrorKind::corrupt) s.failed = moved.error();
            return pass(moved);
        }
    }
    auto record = s.records.take();
    if (!record) return pass(record);
    return std::optional<Record>(*record);
}

Result<SegmentSummary> verify_segment(std::unique_ptr<ByteSource> source,
                                      const std::function<Result<void>(const Record&)>& visit) {
    const uint64_t file_bytes = source->size();
    auto reader = SegmentReader::open(std::move(source));
    if (!reader) return pass(reader);
    SegmentSummary summary;
    summary.header = reader->header();
    summary.file_bytes = file_bytes;
    for (;;) {
        auto record = reader->next();
        if (!record) return pass(record);
        if (!*record) break;
        // A torn file is walked only to say where it is torn.
        if (!reader->whole()) continue;
        summary.last_position = (*record)->position;
        summary.records += 1;
        summary.raw_bytes += sizeof(RecordHeaderDisk) + (*record)->data.size();
        summary.last_time_ns = (*record)->time_ns;
        if (!visit) continue;
        auto visited = visit(**record);
        if (!visited) return pass(visited);
    }
    if (!reader->whole()) return fail(ErrorKind::corrupt, "{}", reader->loss());
    return summary;
}

}  // namespace herald::hrl
