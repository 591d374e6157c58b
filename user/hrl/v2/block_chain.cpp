// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/block_chain.h"

#include <algorithm>

#include "herald/limits.h"
#include "user/hrl/buffer.h"

namespace herald::hrl::v2 {

namespace {

constexpr uint64_t kSearchBytes = 1u << 20;

Result<void> too_many() {
    return fail(ErrorKind::operator_needed, "it has more than {} metadata blocks",
                HERALD_HRL_V2_BLOCKS_MAX);
}

// A block that fits behind its parent.
struct Found {
    uint64_t offset;
    uint32_t parent;
    uint32_t entry_count;
};

class Search {
  public:
    Search(ByteSource& source, const LogHeader& header)
        : source_(source), header_(header), end_(source.size()) {
        if (header.end_offset != 0) end_ = std::min(end_, header.end_offset);
    }

    Result<void> run() {
        const uint64_t block_bytes = header_.metadata_bytes;
        Buffer buffer;
        for (uint64_t at = kHeaderBytes; at < end_ && end_ - at >= block_bytes;) {
            const uint64_t size = std::min(kSearchBytes, end_ - at) & ~uint64_t{511};
            const ByteSpan chunk = buffer.need(size);
            auto read = source_.read(at, chunk);
            if (!read) return read;
            for (uint64_t i = 0; i < size && end_ - at - i >= block_bytes; i += 512) {
                auto looked = look_at(at + i, chunk.subspan(i, sizeof(MetadataHeaderDisk)));
                if (!looked) return looked;
            }
            at += size;
        }
        return {};
    }

    // Along the blocks behind each of which exactly one other fits.
    RecoveredChain chain() const {
        std::vector<uint32_t> children(found_.size() + 1);  // the last counts the first blocks
        std::vector<uint32_t> child(found_.size() + 1);
        for (uint32_t i = 0; i < found_.size(); ++i) {
            const size_t parent = std::min<size_t>(found_[i].parent, found_.size());
            children[parent] += 1;
            child[parent] = i;
        }
        RecoveredChain recovered;
        size_t at = found_.size();
        while (children[at] == 1) {
            at = child[at];
            recovered.chain.offsets.push_back(found_[at].offset);
            recovered.chain.entry_count += found_[at].entry_count;
            recovered.chain.end = found_[at].offset + header_.metadata_bytes;
        }
        recovered.ambiguous = children[at] > 1;
        return recovered;
    }

  private:
    // The block that begins at `offset`, as an index into found_.
    std::optional<uint32_t> block_at(uint64_t offset) const {
        const auto it = std::ranges::lower_bound(found_, offset, {}, &Found::offset);
        if (it == found_.end() || it->offset != offset) return std::nullopt;
        return uint32_t(it - found_.begin());
    }

    Result<void> look_at(uint64_t offset, ByteView header_bytes) {
        auto header = decode_metadata_header(header_bytes, header_.metadata_bytes);
        if (!header) return {};
        uint32_t parent = UINT32_MAX;
        uint64_t data_offset = kHeaderBytes;
        if (header->distance_back != 0) {
            if (header->distance_back > offset) return {};
            const auto before = block_at(offset - header->distance_back);
            if (!before) return {};
            parent = *before;
            data_offset = found_[parent].offset + header_.metadata_bytes;
        }
        if (offset < data_offset) return {};
        const ByteSpan block = block_.need(header_.metadata_bytes);
        auto read = source_.read(offset, block);
        if (!read) return read;
        auto placed = place_entries(block, offset - data_offset, EntryOrder::newest_first);
        if (!placed) return {};
        // Data that is itself a replica log holds blocks that look right. Its entries are older
        // than the log that recorded the writing of it.
        for (const auto& entries : {placed->oldest_first, placed->newest_first}) {
            if (!entries) continue;
            for (const Entry& entry : *entries) {
                if (entry.time < header_.time) return {};
            }
        }
        if (found_.size() >= HERALD_HRL_V2_BLOCKS_MAX) return too_many();
        found_.push_back({offset, parent, header->entry_count});
        return {};
    }

    ByteSource& source_;
    const LogHeader& header_;
    uint64_t end_;
    std::vector<Found> found_;  // by offset
    Buffer block_;
};

}  // namespace

Result<Placement> place_entries(ByteView block, uint64_t data_bytes, EntryOrder expected) {
    auto oldest = decode_entries(block, EntryOrder::oldest_first, data_bytes);
    auto newest = decode_entries(block, EntryOrder::newest_first, data_bytes);
    if (!oldest && !newest) {
        return expected == EntryOrder::oldest_first ? pass(oldest) : pass(newest);
    }
    Placement placement;
    if (oldest) placement.oldest_first = std::move(*oldest);
    if (newest) placement.newest_first = std::move(*newest);
    return placement;
}

Result<BlockChain> follow_chain(ByteSource& source, const LogHeader& header) {
    const uint64_t block_bytes = header.metadata_bytes;
    BlockChain chain;
    chain.end = header.end_offset;
    if (header.end_offset > source.size()) {
        return fail(ErrorKind::corrupt, "it ends at byte {}, its header says {}", source.size(),
                    header.end_offset);
    }
    if (header.end_offset < kHeaderBytes || header.current_bytes < header.end_offset) {
        return fail(ErrorKind::corrupt, "its header puts the end at byte {} of {}",
                    header.end_offset, header.current_bytes);
    }
    if (header.end_offset == kHeaderBytes) {
        if (header.entry_count == 0) return chain;
        return fail(ErrorKind::corrupt,
                    "its header counts {} entries and puts the end before the first of them",
                    header.entry_count);
    }
    // May lie before the header's end, and is refused there.
    uint64_t at = header.end_offset - std::min(header.end_offset, block_bytes);
    for (bool first = false; !first;) {
        std::array<std::byte, sizeof(MetadataHeaderDisk)> bytes;
        if (at < kHeaderBytes) {
            return fail(ErrorKind::corrupt, "metadata block at byte {}: it is in the header", at);
        }
        auto read = source.read(at, bytes);
        if (!read) return pass(read);
        auto block = decode_metadata_header(bytes, header.metadata_bytes);
        if (!block) return pass(block, fmt::format("metadata block at byte {}", at));
        if (chain.offsets.size() >= HERALD_HRL_V2_BLOCKS_MAX) return pass(too_many());
        chain.offsets.push_back(at);
        chain.entry_count += block->entry_count;
        first = block->distance_back == 0;
        // Backwards by at least a block: this is what ends the walk.
        if (!first && (block->distance_back < block_bytes || block->distance_back > at)) {
            return fail(ErrorKind::corrupt,
                        "metadata block at byte {}: the one before it cannot be {} bytes back", at,
                        block->distance_back);
        }
        at -= block->distance_back;
    }
    std::ranges::reverse(chain.offsets);
    if (chain.entry_count != header.entry_count) {
        return fail(ErrorKind::corrupt, "its header counts {} entries, its metadata blocks {}",
                    header.entry_count, chain.entry_count);
    }
    return chain;
}

Result<RecoveredChain> search_chain(ByteSource& source, const LogHeader& header) {
    Search search(source, header);
    auto run = search.run();
    if (!run) return pass(run);
    return search.chain();
}

}  // namespace herald::hrl::v2
