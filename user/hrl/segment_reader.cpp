// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_reader.h"

#include "user/base/digest.h"
#include "user/hrl/block_summary.h"
#include "user/hrl/buffer.h"
#include "user/hrl/lz4_block.h"
#include "user/hrl/sealed_context.h"
#include "user/hrl/segment_frame.h"

namespace herald::hrl {

namespace {

struct Taken {
    Record record;
    uint32_t data_bytes = 0;
};

// The records of a block: their data one behind the other, then their headers in the same order.
// In a sealed file the payloads of records that are not writes lie apart from the data.
struct Records {
    ByteView data;
    ByteView payloads;
    ByteView headers;
    bool is_split = false;
    bool is_hidden = false;     // the data is sealed and there is no key
    uint64_t hidden_bytes = 0;  // how much of it belongs to the records that are left

    bool is_used_up() const { return data.empty() && payloads.empty() && hidden_bytes == 0; }

    // Takes the first record; its header is believed only as far as memory safety goes.
    Result<Taken> take() {
        const auto disk = load_disk<RecordHeaderDisk>(headers.data());
        headers = headers.subspan(sizeof disk);
        Taken taken;
        Record& record = taken.record;
        record.kind = RecordKind(disk.kind);
        record.position = disk.position;
        record.offset = disk.offset;
        record.length = disk.length;
        record.time_ns = disk.time_ns;
        taken.data_bytes = disk.data_bytes;
        const bool is_write = record.kind == RecordKind::write;
        record.data_is_sealed = is_hidden && is_write;
        ByteView& from = is_split && !is_write ? payloads : data;
        const uint64_t left = record.data_is_sealed ? hidden_bytes : from.size();
        if (disk.data_bytes > left) {
            return fail(ErrorKind::corrupt, "record {} passes its block's end", disk.position);
        }
        if (disk.flags != 0 || disk.reserved != 0) {
            return fail(ErrorKind::corrupt, "record {}: a reserved field is set", disk.position);
        }
        if (record.data_is_sealed) {
            hidden_bytes -= disk.data_bytes;
        } else {
            record.data = from.first(disk.data_bytes);
            from = from.subspan(disk.data_bytes);
        }
        return taken;
    }
};

}  // namespace

struct SegmentReader::State {
    explicit State(CheckedHeader checked)
        : header(checked.header),
          order(checked.header),
          opener(std::move(checked.opener)),
          chain(checked.checksum) {}

    std::unique_ptr<ByteSource> source;
    std::string name;
    SegmentHeader header;
    OrderCheck order;
    std::optional<seal::FileOpener> opener;
    std::optional<Tail> tail;  // of a whole file
    std::string loss;
    std::optional<Error> failed;  // sticks: after it nothing is handed out
    bool at_end = false;

    // Where the next block is expected, and as what.
    uint64_t block_offset = sizeof(SegmentHeaderDisk);
    uint32_t block_index = 0;
    uint64_t chain = 0;
    bool chain_known = true;  // not right behind a seek, or a block that was stepped over
    std::function<bool(uint32_t)> wanted;

    uint64_t last_position_seen = 0;
    Buffer stored_buffer;
    Buffer opened_buffer;
    Buffer raw_buffer;
    Records records;  // of the open block, verified, not handed out yet

    bool is_sealed() const { return header.sealed_by != SealedBy::nobody; }
    uint64_t blocks_end() const { return tail ? tail->footer.index_offset : source->size(); }
    Result<ByteView> fetch(uint64_t offset, uint64_t size);
    Result<BlockHeaderDisk> read_block_header();
    Result<ByteView> decompress(Codec codec, ByteView stored, uint32_t raw_bytes);
    Result<Records> unpack(const BlockHeaderDisk& disk, ByteView stored);
    Result<Records> unpack_sealed(const BlockHeaderDisk& disk, ByteView stored);
    Result<IndexEntryDisk> check_records(const BlockHeaderDisk& disk, Records unchecked);
    Result<void> open_block();
    void step_over_unwanted();
    Result<void> next_block();
    Result<bool> at_index();
    Result<void> end_torn(const Error& problem);
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
    const uint64_t stored_max = uint64_t(disk.raw_bytes) + (is_sealed() ? kSealBytes : 0);
    const bool stored_fits = disk.codec == uint8_t(Codec::raw) ? disk.stored_bytes == stored_max
                                                               : disk.stored_bytes < stored_max;
    if (disk.raw_bytes > std::max<uint64_t>(raw_max, header.block_bytes) ||
        disk.record_count == 0 || disk.record_count > disk.raw_bytes / sizeof(RecordHeaderDisk) ||
        !stored_fits || disk.codec > uint8_t(Codec::lz4) ||
        !all_zero(std::as_bytes(std::span(disk.reserved)))) {
        return fail(ErrorKind::corrupt, "its header is not one of a block");
    }
    if (block_file_bytes(disk.stored_bytes) > left) return fail(ErrorKind::corrupt, "it is cut");
    const bool positions_follow =
        header.contents != Contents::segment || disk.first_position == order.next_position();
    if (disk.index != block_index || !positions_follow) {
        return fail(ErrorKind::corrupt, "it is block {} at position {}, which belongs elsewhere",
                    disk.index, disk.first_position);
    }
    if (chain_known && disk.chain != chain) {
        return fail(ErrorKind::corrupt, "it is not chained to what is before it");
    }
    return disk;
}

Result<ByteView> SegmentReader::State::decompress(Codec codec, ByteView stored,
                                                  uint32_t raw_bytes) {
    if (codec == Codec::raw) return stored;
    const ByteSpan raw = raw_buffer.need(raw_bytes);
    if (!decompress_lz4(stored, raw)) return fail(ErrorKind::corrupt, "it does not decompress");
    return ByteView(raw);
}

Result<Records> SegmentReader::State::unpack(const BlockHeaderDisk& disk, ByteView stored) {
    auto raw = decompress(Codec(disk.codec), stored, disk.raw_bytes);
    if (!raw) return pass(raw);
    Records found;
    // read_block_header() saw to it that there is room for so many.
    const size_t headers_bytes = disk.record_count * sizeof(RecordHeaderDisk);
    found.data = raw->first(raw->size() - headers_bytes);
    found.headers = raw->last(headers_bytes);
    return found;
}

Result<Records> SegmentReader::State::unpack_sealed(const BlockHeaderDisk& disk, ByteView stored) {
    const size_t headers_bytes = disk.record_count * sizeof(RecordHeaderDisk);
    if (stored.size() < kSealBytes + headers_bytes) {
        return fail(ErrorKind::corrupt, "it has no room for its records");
    }
    const auto sealed = load_disk<SealHeaderDisk>(stored.data());
    if (sealed.segment != header.segment.bytes || sealed.seal != header.seal.bytes ||
        sealed.index != disk.index) {
        return fail(ErrorKind::corrupt, "it was sealed as block {} of another file", sealed.index);
    }
    if (sealed.plain_bytes < headers_bytes || sealed.plain_bytes > disk.raw_bytes ||
        sealed.plain_bytes > stored.size() - kSealBytes) {
        return fail(ErrorKind::corrupt, "it has no room for its records");
    }
    const ByteView data =
        stored.subspan(sizeof sealed, stored.size() - kSealBytes - sealed.plain_bytes);
    const ByteView plain = stored.subspan(sizeof sealed + data.size(), sealed.plain_bytes);
    const uint32_t raw_bytes = disk.raw_bytes - sealed.plain_bytes;
    const bool data_fits =
        disk.codec == uint8_t(Codec::raw) ? data.size() == raw_bytes : data.size() < raw_bytes;
    if (!data_fits) return fail(ErrorKind::corrupt, "its header is not one of a block");
    Records found;
    found.is_split = true;
    found.payloads = plain.first(plain.size() - headers_bytes);
    found.headers = plain.last(headers_bytes);
    if (!opener) {
        found.is_hidden = true;
        found.hidden_bytes = raw_bytes;
        return found;
    }
    const ByteSpan opened = opened_buffer.need(data.size());
    const SealedContext context(header.machine, header.disk, disk_bytes_of(disk),
                                stored.first(sizeof sealed), plain);
    const auto tag = load_disk<seal::AuthTag>(stored.data() + stored.size() - kAuthTagBytes);
    if (!opener->open_part({seal::SealUse::block, sealed.index}, context.parts(), data, tag,
                           opened)) {
        return fail(ErrorKind::corrupt,
                    "it is not authentic: it was changed, or sealed for another place, file, disk "
                    "or machine");
    }
    auto raw = decompress(Codec(disk.codec), opened, raw_bytes);
    if (!raw) return pass(raw);
    found.data = *raw;
    return found;
}

Result<IndexEntryDisk> SegmentReader::State::check_records(const BlockHeaderDisk& disk,
                                                           Records unchecked) {
    IndexEntryDisk summary{};
    summary.file_offset = block_offset;
    summary.stored_bytes = disk.stored_bytes;
    OrderCheck checked = order;
    uint64_t last_position = last_position_seen;
    std::optional<LayerPart> first_part;
    for (uint32_t i = 0; i < disk.record_count; ++i) {
        auto taken = unchecked.take();
        if (!taken) return pass(taken);
        const Record& record = taken->record;
        auto valid = validate_sealed(record, taken->data_bytes);
        if (!valid) return pass(valid);
        const auto part = checked.take(record);
        if (!part) return pass(part);
        if (first_part && *first_part != *part) {
            return fail(ErrorKind::corrupt, "it holds records of two parts of the layer");
        }
        first_part = *part;
        add_to_summary(summary, record, taken->data_bytes, *part);
        last_position = std::max(last_position, record.position);
    }
    if (!unchecked.is_used_up()) {
        return fail(ErrorKind::corrupt, "bytes of it belong to none of its records");
    }
    if (summary.first_position != disk.first_position) {
        return fail(ErrorKind::corrupt, "its first record is {}, not {}", summary.first_position,
                    disk.first_position);
    }
    order = checked;
    last_position_seen = last_position;
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
    if (tail && block_index + 1 == tail->entries.size() && checksum != tail->footer.chain) {
        return fail(ErrorKind::corrupt, "it is not the block that the footer names as the last");
    }
    const ByteView stored = bytes->subspan(sizeof *disk, disk->stored_bytes);
    auto found = is_sealed() ? unpack_sealed(*disk, stored) : unpack(*disk, stored);
    if (!found) return pass(found);
    const OrderCheck order_before = order;
    auto summary = check_records(*disk, *found);
    if (!summary) return pass(summary);
    if (tail && (block_index >= tail->entries.size() || tail->entries[block_index] != *summary)) {
        order = order_before;
        return fail(ErrorKind::corrupt, "it is not what the index says of it");
    }
    records = *found;
    block_offset += bytes->size();
    block_index += 1;
    chain = checksum;
    chain_known = true;
    return {};
}

void SegmentReader::State::step_over_unwanted() {
    if (!tail || !wanted) return;
    while (block_index < tail->entries.size() && !wanted(block_index)) {
        const IndexEntryDisk& entry = tail->entries[block_index];
        block_offset += block_file_bytes(entry.stored_bytes);
        block_index += 1;
        chain_known = false;
        if (block_index < tail->entries.size()) {
            order.jump_to(tail->entries[block_index].first_position);
        }
    }
}

Result<void> SegmentReader::State::next_block() {
    step_over_unwanted();
    BlockState state = BlockState::good;
    Result<void> opened;
    if (block_offset == blocks_end()) {
        state = BlockState::none;
        opened = fail(ErrorKind::corrupt, "it is missing");
    } else {
        opened = open_block();
        // Trouble with the source is not damage of the file: say so, and let the caller try again.
        if (!opened) {
            state = opened.error().kind == ErrorKind::corrupt ? BlockState::damaged
                                                              : BlockState::unreadable;
        }
    }
    switch (recovery_action(HeaderState::good, tail ? TailState::whole : TailState::torn, state)) {
        case RecoveryAction::hand_out:
            return {};
        case RecoveryAction::end:
            at_end = true;
            return {};
        case RecoveryAction::end_torn:
            return end_torn(opened.error());
        case RecoveryAction::fail:
            return pass(opened,
                        fmt::format("{}: block {} at byte {}", name, block_index, block_offset));
        default:
            return opened;
    }
}

Result<void> SegmentReader::State::end_torn(const Error& problem) {
    auto index_begins = at_index();
    if (!index_begins) return pass(index_begins);
    at_end = true;
    const uint64_t left = source->size() - block_offset;
    if (*index_begins) {
        loss += "; all its blocks are there";
        if (header.contents == Contents::segment) {
            loss += fmt::format(", up to record {}", last_position_seen);
        }
    } else {
        // In a layer the last record is not the newest.
        if (header.contents == Contents::segment) {
            loss += fmt::format("; its last whole record is {}", last_position_seen);
        }
        loss += fmt::format("{} {} bytes from byte {} on are lost",
                            header.contents == Contents::segment ? "," : ";", left, block_offset);
        if (left != 0) loss += fmt::format(" (block {}: {})", block_index, problem.message);
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

Result<SegmentReader> SegmentReader::open(std::unique_ptr<ByteSource> source,
                                          const ReadOptions& options) {
    CheckedHeader header = read_header(*source, options);
    if (header.state != HeaderState::good) return tl::unexpected<Error>(header.problem);
    if (header.header.contents != Contents::segment && !options.layers) {
        return fail(ErrorKind::operator_needed, "{}: it is a layer of a vault, not a segment",
                    source->name());
    }
    auto tail = read_tail(*source, header);
    if (!tail && tail.error().kind != ErrorKind::corrupt) return pass(tail, source->name());
    auto state = std::make_unique<State>(std::move(header));
    state->name = source->name();
    state->last_position_seen = state->header.first_position - 1;
    if (tail) {
        state->tail = std::move(*tail);
        state->order.set_last_position(state->tail->footer.last_position);
    } else {
        state->loss = fmt::format("{} is not whole: {}", state->name, tail.error().message);
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

bool SegmentReader::opens_data() const { return !state_->is_sealed() || state_->opener; }

Result<void> SegmentReader::seek(uint32_t block) {
    State& s = *state_;
    if (s.failed) return tl::unexpected<Error>(*s.failed);
    if (!s.tail || block >= s.tail->entries.size()) {
        return fail(ErrorKind::operator_needed, "{}: there is no block {} to go to", s.name, block);
    }
    const IndexEntryDisk& entry = s.tail->entries[block];
    s.records = {};
    s.at_end = false;
    s.block_index = block;
    s.block_offset = entry.file_offset;
    s.chain_known = false;
    s.order.jump_to(entry.first_position);
    return {};
}

void SegmentReader::only(std::function<bool(uint32_t)> wanted) {
    state_->wanted = std::move(wanted);
}

std::span<const IndexEntryDisk> SegmentReader::blocks() const {
    if (!state_->tail) return {};
    return state_->tail->entries;
}

std::span<const SectionHeaderDisk> SegmentReader::sections() const {
    if (!state_->tail) return {};
    return state_->tail->sections;
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
    auto taken = s.records.take();
    if (!taken) return pass(taken);
    return std::optional<Record>(taken->record);
}

Result<SegmentSummary> verify_segment(std::unique_ptr<ByteSource> source,
                                      const std::function<Result<void>(const Record&)>& visit,
                                      const ReadOptions& options) {
    const uint64_t file_bytes = source->size();
    auto reader = SegmentReader::open(std::move(source), options);
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
        summary.records += 1;
        summary.last_time_ns = (*record)->time_ns;
        if (!visit) continue;
        auto visited = visit(**record);
        if (!visited) return pass(visited);
    }
    if (!reader->whole()) return fail(ErrorKind::corrupt, "{}", reader->loss());
    summary.last_position = *reader->last_position();
    for (const IndexEntryDisk& block : reader->blocks()) summary.raw_bytes += block.raw_bytes;
    return summary;
}

}  // namespace herald::hrl
