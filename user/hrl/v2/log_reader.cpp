// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/log_reader.h"

#include <algorithm>

#include "herald/limits.h"
#include "user/hrl/buffer.h"
#include "user/hrl/v2/block_chain.h"
#include "user/hrl/v2/checksum.h"

namespace herald::hrl::v2 {

namespace {

// What the times of a full block say of its order: nothing when they fit both or neither.
std::optional<EntryOrder> order_by_times(const std::vector<Entry>& oldest_first) {
    const bool rises = std::ranges::is_sorted(oldest_first, {}, &Entry::time);
    const bool falls = std::ranges::is_sorted(oldest_first, std::ranges::greater{}, &Entry::time);
    if (rises == falls) return std::nullopt;
    return rises ? EntryOrder::oldest_first : EntryOrder::newest_first;
}

}  // namespace

struct LogReader::State {
    std::unique_ptr<ByteSource> source;
    std::string name;
    LogHeader header;
    BlockChain chain;
    bool whole = false;
    std::string loss;
    std::optional<Error> failed;  // sticks: after it nothing is handed out

    std::optional<EntryOrder> proven;   // by the place of unused slots in some block
    std::optional<EntryOrder> by_time;  // by the times in some full block
    std::optional<EntryOrder> assumed;

    size_t next_block = 0;       // the next to be opened
    std::vector<Entry> entries;  // of the open block, oldest first, verified
    size_t entry = 0;            // the next of them
    uint64_t entry_done = 0;     // bytes of it that were handed out
    uint64_t data_at = 0;        // of the next bytes, in the file
    uint64_t position = 1;
    uint64_t entries_read = 0;
    uint64_t entries_unchecked = 0;
    Buffer metadata_buffer;
    Buffer data_buffer;

    Result<ByteView> fetch(Buffer& buffer, uint64_t offset, uint64_t size);
    Result<void> find_order();
    Result<Placement> read_block(size_t index);
    Result<std::optional<size_t>> bad_data(const std::vector<Entry>& found, uint64_t at);
    Result<std::vector<Entry>> settle(size_t index, Placement placement);
    Result<void> open_block();
};

Result<ByteView> LogReader::State::fetch(Buffer& buffer, uint64_t offset, uint64_t size) {
    if (auto borrowed = source->borrow(offset, size)) return *borrowed;
    const ByteSpan to = buffer.need(size);
    auto read = source->read(offset, to);
    if (!read) return pass(read);
    return ByteView(to);
}

// Read again, although the chain was followed: a header that changed in between is refused.
Result<Placement> LogReader::State::read_block(size_t index) {
    const uint64_t at = chain.offsets[index];
    const std::string where = fmt::format("{}: metadata block at byte {}", name, at);
    auto block = fetch(metadata_buffer, at, header.metadata_bytes);
    if (!block) return pass(block);
    auto checked = decode_metadata_header(*block, header.metadata_bytes);
    if (!checked) return pass(checked, where);
    const uint64_t data_offset = chain.data_offset(index, header);
    auto placement =
        place_entries(*block, at - data_offset, proven.value_or(EntryOrder::newest_first));
    if (!placement) return pass(placement, where);
    return placement;
}

// The order is a property of a log. The last block is the one that is seldom full, so the search
// from the end mostly looks at one block.
Result<void> LogReader::State::find_order() {
    for (size_t i = chain.offsets.size(); i-- > 0 && !proven;) {
        auto placement = read_block(i);
        if (!placement) {
            if (placement.error().kind != ErrorKind::corrupt &&
                placement.error().kind != ErrorKind::operator_needed) {
                return pass(placement);
            }
            continue;  // said when the block's turn comes
        }
        if (!placement->either()) {
            proven = placement->oldest_first ? EntryOrder::oldest_first : EntryOrder::newest_first;
        } else if (!by_time && placement->oldest_first != placement->newest_first) {
            by_time = order_by_times(*placement->oldest_first);
        }
    }
    return {};
}

// The first entry whose data is not what its checksum says.
Result<std::optional<size_t>> LogReader::State::bad_data(const std::vector<Entry>& found,
                                                         uint64_t at) {
    for (size_t i = 0; i < found.size(); ++i) {
        Checksum checksum;
        for (uint64_t left = found[i].data_bytes; left != 0;) {
            const uint64_t size = std::min<uint64_t>(left, HERALD_RECORD_DATA_BYTES_MAX);
            if (found[i].data_checksum != 0) {
                auto data = fetch(data_buffer, at, size);
                if (!data) return pass(data);
                checksum.add(*data);
            }
            at += size;
            left -= size;
        }
        if (found[i].data_checksum != 0 && found[i].data_checksum != checksum.value()) {
            return std::optional<size_t>(i);
        }
    }
    return std::optional<size_t>();
}

// The entries of a block, oldest first, with their data checked.
Result<std::vector<Entry>> LogReader::State::settle(size_t index, Placement placement) {
    const uint64_t data_begin = chain.data_offset(index, header);
    const std::string where =
        fmt::format("{}: metadata block at byte {}", name, chain.offsets[index]);
    std::optional<EntryOrder> order = proven;
    if (!placement.either()) {
        order = placement.oldest_first ? EntryOrder::oldest_first : EntryOrder::newest_first;
    } else if (*placement.oldest_first == *placement.newest_first) {
        order = EntryOrder::oldest_first;  // one entry, or none: there is only one order
    }
    std::vector<EntryOrder> candidates;
    if (order) {
        candidates = {*order};
    } else {
        const EntryOrder likely = by_time.value_or(assumed.value_or(EntryOrder::newest_first));
        const bool newest = likely == EntryOrder::newest_first;
        candidates = {likely, newest ? EntryOrder::oldest_first : EntryOrder::newest_first};
    }
    std::vector<bool> fits;
    std::optional<size_t> bad;
    for (const EntryOrder candidate : candidates) {
        auto found = bad_data(candidate == EntryOrder::oldest_first ? *placement.oldest_first
                                                                    : *placement.newest_first,
                              data_begin);
        if (!found) return pass(found);
        if (fits.empty()) bad = *found;
        fits.push_back(!*found);
    }
    if (std::ranges::none_of(fits, [](bool fit) { return fit; })) {
        return fail(ErrorKind::corrupt, "{}: the data of its entry {} is not what was written",
                    where, *bad + 1);
    }
    if (!order) {
        if (fits[0] != fits[1]) {
            order = candidates[fits[0] ? 0 : 1];  // the data's checksums prove it
        } else if (by_time || assumed) {
            order = candidates[0];
        } else {
            return fail(ErrorKind::operator_needed,
                        "{}: nothing proves in which order its entries lie; name it with "
                        "--entry-order",
                        where);
        }
    }
    return order == EntryOrder::oldest_first ? std::move(*placement.oldest_first)
                                             : std::move(*placement.newest_first);
}

Result<void> LogReader::State::open_block() {
    auto placement = read_block(next_block);
    if (!placement) return pass(placement);
    auto settled = settle(next_block, std::move(*placement));
    if (!settled) return pass(settled);
    entries = std::move(*settled);
    entry = 0;
    entry_done = 0;
    data_at = chain.data_offset(next_block, header);
    next_block += 1;
    return {};
}

Result<bool> is_log(ByteSource& source) {
    std::array<std::byte, kCookie.size()> found;
    if (source.size() < found.size()) return false;
    auto read = source.read(0, found);
    if (!read) return pass(read);
    return std::memcmp(found.data(), kCookie.data(), found.size()) == 0;
}

LogReader::LogReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
LogReader::LogReader(LogReader&&) noexcept = default;
LogReader& LogReader::operator=(LogReader&&) noexcept = default;
LogReader::~LogReader() = default;

Result<LogReader> LogReader::open(std::unique_ptr<ByteSource> source,
                                  std::optional<EntryOrder> assumed) {
    auto state = std::make_unique<State>();
    state->name = source->name();
    state->assumed = assumed;
    const uint64_t size = source->size();
    if (size < kHeaderBytes) {
        return fail(ErrorKind::corrupt, "{}: not a replica log: {} bytes are fewer than its header",
                    state->name, size);
    }
    LogHeaderDisk disk;
    auto read = source->read(0, std::as_writable_bytes(std::span(&disk, 1)));
    if (!read) return pass(read);
    auto header = decode_header(disk);
    if (!header) return pass(header, state->name);
    state->header = *header;
    state->source = std::move(source);

    std::string why = "it was not closed (its header names no end)";
    if (header->end_offset != 0) {
        auto chain = follow_chain(*state->source, *header);
        if (chain) {
            state->whole = true;
            state->chain = std::move(*chain);
        } else if (chain.error().kind == ErrorKind::corrupt) {
            why = chain.error().message;
        } else {
            return pass(chain, state->name);
        }
    }
    if (!state->whole) {
        auto recovered = search_chain(*state->source, *header);
        if (!recovered) return pass(recovered, state->name);
        state->chain = std::move(recovered->chain);
        const uint64_t end = state->chain.end;
        state->loss = fmt::format(
            "{} is not whole: {}; {} entries are proven, {} bytes from byte {} on are lost",
            state->name, why, state->chain.entry_count, size - end, end);
        if (recovered->ambiguous) state->loss += " (two metadata blocks claim them)";
    }
    auto found = state->find_order();
    if (!found) return pass(found);
    return LogReader(std::move(state));
}

const LogHeader& LogReader::header() const { return state_->header; }
bool LogReader::whole() const { return state_->whole; }
const std::string& LogReader::loss() const { return state_->loss; }
uint64_t LogReader::block_count() const { return state_->chain.offsets.size(); }
uint64_t LogReader::entry_count() const { return state_->chain.entry_count; }
uint64_t LogReader::end() const { return state_->chain.end; }
uint64_t LogReader::entries_read() const { return state_->entries_read; }
uint64_t LogReader::entries_unchecked() const { return state_->entries_unchecked; }

std::optional<EntryOrder> LogReader::entry_order() const {
    return state_->proven ? state_->proven : state_->by_time;
}

uint64_t LogReader::trailing_bytes() const {
    return state_->whole ? state_->source->size() - state_->chain.end : 0;
}

Result<std::optional<Record>> LogReader::next() {
    State& s = *state_;
    if (s.failed) return tl::unexpected<Error>(*s.failed);
    while (s.entry == s.entries.size()) {
        if (s.next_block == s.chain.offsets.size()) return std::optional<Record>();
        auto opened = s.open_block();
        if (!opened) {
            if (opened.error().kind == ErrorKind::corrupt) s.failed = opened.error();
            return pass(opened);
        }
    }
    const Entry& entry = s.entries[s.entry];
    const uint64_t size =
        std::min<uint64_t>(entry.data_bytes - s.entry_done, HERALD_RECORD_DATA_BYTES_MAX);
    auto data = s.fetch(s.data_buffer, s.data_at, size);
    if (!data) return pass(data);
    Record record;
    record.kind = RecordKind::write;
    record.position = s.position++;
    record.offset = entry.byte_offset + s.entry_done;
    record.length = size;
    record.time_ns = time_ns_of(entry.time);
    record.data = *data;
    record.data_is_unchecked = entry.data_checksum == 0;
    s.data_at += size;
    s.entry_done += size;
    if (s.entry_done == entry.data_bytes) {
        s.entries_read += 1;
        s.entries_unchecked += entry.data_checksum == 0;
        s.entry += 1;
        s.entry_done = 0;
    }
    return std::optional<Record>(record);
}

}  // namespace herald::hrl::v2
