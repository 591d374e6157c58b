// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/metadata.h"

#include "herald/limits.h"
#include "user/hrl/v2/checksum.h"

namespace herald::hrl::v2 {

namespace {

template <class T>
T load(ByteView bytes, size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

size_t slot_at(uint32_t slot) { return sizeof(MetadataHeaderDisk) + slot * sizeof(EntryDisk); }

// Where the i-th oldest of `count` entries lies.
uint32_t slot_of(uint32_t i, uint32_t slots, EntryOrder order) {
    return order == EntryOrder::oldest_first ? i : slots - 1 - i;
}

Result<Entry> decode_entry(ByteView bytes) {
    const auto disk = load<EntryDisk>(bytes, 0);
    const uint32_t stored = disk.checksum;
    if (stored != checksum_around(bytes, offsetof(EntryDisk, checksum))) {
        return fail(ErrorKind::corrupt, "its checksum is wrong");
    }
    if (disk.operation != kOperationWrite) {
        return fail(ErrorKind::operator_needed, "its operation {} is not known", disk.operation);
    }
    if (disk.location != 0) {
        return fail(ErrorKind::operator_needed, "its data is at a location {} that is not known",
                    disk.location);
    }
    Entry entry{disk.byte_offset, disk.data_bytes, disk.time, disk.data_checksum};
    if (entry.data_bytes == 0 || entry.data_bytes % HERALD_SECTOR_BYTES != 0 ||
        entry.byte_offset % HERALD_SECTOR_BYTES != 0 || entry.byte_offset > HERALD_DISK_BYTES_MAX ||
        entry.data_bytes > HERALD_DISK_BYTES_MAX - entry.byte_offset) {
        return fail(ErrorKind::corrupt, "no disk has its range ({} bytes at {})", entry.data_bytes,
                    entry.byte_offset);
    }
    return entry;
}

}  // namespace

Result<MetadataHeader> decode_metadata_header(ByteView block, uint32_t metadata_bytes) {
    const auto disk = load<MetadataHeaderDisk>(block, 0);
    const uint32_t stored = disk.checksum;
    if (stored !=
        checksum_around(block.first(sizeof disk), offsetof(MetadataHeaderDisk, checksum))) {
        return fail(ErrorKind::corrupt, "its checksum is wrong");
    }
    MetadataHeader header{disk.distance_back, disk.entry_count};
    if (header.entry_count > entry_slots(metadata_bytes)) {
        return fail(ErrorKind::corrupt, "it speaks of {} entries and has room for {}",
                    header.entry_count, entry_slots(metadata_bytes));
    }
    return header;
}

Result<std::vector<Entry>> decode_entries(ByteView block, EntryOrder order, uint64_t data_bytes) {
    const uint32_t slots = entry_slots(uint32_t(block.size()));
    const uint32_t count = load<MetadataHeaderDisk>(block, 0).entry_count;
    HERALD_ASSERT(count <= slots);
    std::vector<Entry> entries;
    entries.reserve(count);
    uint64_t described = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t slot = slot_of(i, slots, order);
        auto entry = decode_entry(block.subspan(slot_at(slot), sizeof(EntryDisk)));
        if (!entry) return pass(entry, fmt::format("entry in slot {}", slot));
        described += entry->data_bytes;
        entries.push_back(*entry);
    }
    if (described != data_bytes) {
        return fail(ErrorKind::corrupt, "its entries describe {} bytes of data, before it are {}",
                    described, data_bytes);
    }
    return entries;
}

Bytes encode_metadata(uint64_t distance_back, const std::vector<Entry>& entries, EntryOrder order,
                      uint32_t metadata_bytes) {
    const uint32_t slots = entry_slots(metadata_bytes);
    HERALD_ASSERT(entries.size() <= slots);
    Bytes block(metadata_bytes);
    MetadataHeaderDisk header{};
    header.distance_back = distance_back;
    header.entry_count = uint32_t(entries.size());
    header.checksum = checksum_around(std::as_bytes(std::span(&header, 1)),
                                      offsetof(MetadataHeaderDisk, checksum));
    std::memcpy(block.data(), &header, sizeof header);
    for (uint32_t i = 0; i < entries.size(); ++i) {
        EntryDisk disk{};
        disk.byte_offset = entries[i].byte_offset;
        disk.data_bytes = entries[i].data_bytes;
        disk.time = entries[i].time;
        disk.operation = kOperationWrite;
        disk.data_checksum = entries[i].data_checksum;
        disk.checksum =
            checksum_around(std::as_bytes(std::span(&disk, 1)), offsetof(EntryDisk, checksum));
        std::memcpy(block.data() + slot_at(slot_of(i, slots, order)), &disk, sizeof disk);
    }
    return block;
}

const char* to_string(EntryOrder order) {
    return order == EntryOrder::oldest_first ? "oldest first" : "newest first";
}

}  // namespace herald::hrl::v2
