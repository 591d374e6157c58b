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

// Where the index of a file with this footer must be, and what lies between it and the footer.
struct TailPlace {
    uint64_t index_bytes = 0;
    uint64_t sections_bytes = 0;
    uint64_t tag_bytes = 0;
};

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
    return read;
}

Result<TailPlace> place_tail(const FooterDisk& footer, const CheckedHeader& header) {
    TailPlace place;
    place.index_bytes = index_file_bytes(footer.block_count);
    place.tag_bytes = header.header.sealed_by == SealedBy::nobody ? 0 : kTailTagBytes;
    const uint64_t behind = place.index_bytes + place.tag_bytes + sizeof(FooterDisk);
    const uint64_t sections_max = header.has_unknown_optional ? HERALD_HRL_SECTIONS_BYTES_MAX : 0;
    if (behind > footer.file_bytes || footer.index_offset > footer.file_bytes - behind ||
        footer.file_bytes - behind - footer.index_offset > sections_max) {
        return fail(ErrorKind::corrupt, "its footer points to an index at byte {}",
                    footer.index_offset);
    }
    place.sections_bytes = footer.file_bytes - behind - footer.index_offset;
    return place;
}

// Sections are for features that this code does not have; that they are whole is all it can say.
Result<std::vector<SectionHeaderDisk>> check_sections(ByteView bytes, uint32_t features) {
    std::vector<SectionHeaderDisk> sections;
    for (size_t count = 0; !bytes.empty(); ++count) {
        const uint64_t frame = sizeof(SectionHeaderDisk) + kChecksumBytes;
        if (count == HERALD_HRL_SECTIONS_MAX || bytes.size() < frame) {
            return fail(ErrorKind::corrupt, "it has bytes between index and footer");
        }
        const auto section = load_disk<SectionHeaderDisk>(bytes.data());
        if (section.magic != kSectionMagic || section.bytes > bytes.size() - frame) {
            return fail(ErrorKind::corrupt, "it has bytes between index and footer");
        }
        if (section.kind >= 32 || (features >> section.kind & 1) == 0) {
            return fail(ErrorKind::corrupt, "its section {} is of feature {}, which it has not",
                        count, section.kind);
        }
        const size_t checked = sizeof section + section.bytes;
        if (load_le<uint64_t>(bytes.data() + checked) != xxh3_64(bytes.first(checked))) {
            return fail(ErrorKind::corrupt, "the checksum of its section {} is wrong", count);
        }
        bytes = bytes.subspan(frame + section.bytes);
        sections.push_back(section);
    }
    return sections;
}

// Entries must lie one behind the other, in file and stream, and add up to the footer's word.
Result<void> check_entries(const Tail& tail, const SegmentHeader& header) {
    const FooterDisk& footer = tail.footer;
    const bool segment = header.contents == Contents::segment;
    if (footer.last_position > HERALD_POSITION_MAX) {
        return fail(ErrorKind::corrupt, "its footer speaks of position {}", footer.last_position);
    }
    // No sum wraps: at most 2^17 entries of less than 2^32 each, from a position below 2^63 on.
    uint64_t file_offset = sizeof(SegmentHeaderDisk);
    uint64_t position = header.first_position;
    uint64_t records = 0;
    uint64_t raw_bytes = 0;
    for (const IndexEntryDisk& entry : tail.entries) {
        const bool follows = segment ? entry.first_position == position
                                     : entry.first_position >= header.first_position &&
                                           entry.first_position <= footer.last_position;
        if (entry.file_offset != file_offset || !follows || entry.record_count == 0) {
            return fail(ErrorKind::corrupt, "its index entry {} does not follow from the last",
                        &entry - tail.entries.data());
        }
        file_offset += block_file_bytes(entry.stored_bytes);
        if (segment) position += entry.record_count;
        records += entry.record_count;
        raw_bytes += entry.raw_bytes;
    }
    if (file_offset != footer.index_offset || records != footer.record_count ||
        raw_bytes != footer.raw_bytes || (segment && position - 1 != footer.last_position)) {
        return fail(ErrorKind::corrupt, "its footer and index do not agree");
    }
    return {};
}

bool is_sealed_well(const SegmentHeaderDisk& disk) {
    if ((disk.features_required & kFeatureSealed) == 0) {
        return disk.sealed_by == 0 && all_zero(disk.key_id) && all_zero(disk.seal) &&
               all_zero(disk.header_tag);
    }
    return disk.sealed_by >= uint8_t(SealedBy::server) &&
           disk.sealed_by <= uint8_t(SealedBy::source) && !all_zero(disk.key_id) &&
           !all_zero(disk.seal);
}

SegmentHeader from_disk(const SegmentHeaderDisk& disk) {
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
    header.contents = Contents(disk.contents);
    header.order = RecordOrder(disk.record_order);
    header.granule_log2 = disk.granule_log2;
    header.features_optional = disk.features_optional;
    header.sealed_by = SealedBy(disk.sealed_by);
    header.key_id.bytes = disk.key_id;
    header.seal.bytes = disk.seal;
    return header;
}

// Everything about the header that needs no key, in the order of the specification.
CheckedHeader check_plain_header(const SegmentHeaderDisk& disk, const std::string& name) {
    CheckedHeader checked;
    const auto stop = [&](HeaderState state, tl::unexpected<Error> problem) {
        checked.state = state;
        checked.problem = std::move(problem.value());
        return std::move(checked);
    };
    if (disk.magic != kSegmentMagic) {
        return stop(
            HeaderState::damaged,
            fail(ErrorKind::corrupt, "{}: not a segment: it begins with other bytes", name));
    }
    const ByteView covered = disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, checksum));
    if (disk.checksum != xxh3_64(covered)) {
        return stop(HeaderState::damaged,
                    fail(ErrorKind::corrupt, "{}: header at byte 0: its checksum is wrong", name));
    }
    if (disk.version != kVersion) {
        return stop(HeaderState::newer,
                    fail(ErrorKind::operator_needed, "{}: format version {}; this program reads {}",
                         name, disk.version, kVersion));
    }
    if (const uint32_t unknown = disk.features_required & ~kFeaturesKnown; unknown != 0) {
        return stop(
            HeaderState::newer,
            fail(ErrorKind::operator_needed,
                 "{}: needs features {:#x} that this program does not have; use a newer one", name,
                 unknown));
    }
    checked.has_unknown_optional = (disk.features_optional & ~kOptionalKnown) != 0;
    const bool orders_known = disk.record_order >= uint8_t(RecordOrder::by_position) &&
                              disk.record_order <= uint8_t(RecordOrder::by_block_then_position) &&
                              disk.contents <= uint8_t(Contents::image_layer);
    if (!orders_known || disk.header_bytes != sizeof disk ||
        !all_zero(std::as_bytes(std::span(disk.reserved_a))) ||
        (!checked.has_unknown_optional && !all_zero(std::as_bytes(std::span(disk.reserved_b))))) {
        return stop(HeaderState::damaged,
                    fail(ErrorKind::corrupt,
                         "{}: header at byte 0: a field has a value that it may not have", name));
    }
    if (!is_sealed_well(disk)) {
        return stop(HeaderState::damaged,
                    fail(ErrorKind::corrupt,
                         "{}: header at byte 0: its fields about sealing do not agree", name));
    }
    checked.header = from_disk(disk);
    checked.checksum = disk.checksum;
    auto valid = validate(checked.header);
    if (!valid) return stop(HeaderState::damaged, pass(valid, name));
    checked.state = HeaderState::good;
    return checked;
}

// Finds the key and proves the header with it.
void open_seal(CheckedHeader& checked, const SegmentHeaderDisk& disk, const std::string& name,
               const ReadOptions& options) {
    const SegmentHeader& header = checked.header;
    if (header.sealed_by == SealedBy::nobody) {
        if (!options.sealed_only) return;
        checked.state = HeaderState::unsealed;
        checked.problem = fail(ErrorKind::operator_needed,
                               "{}: it is not sealed, and only sealed files are to be read", name)
                              .value();
        return;
    }
    const seal::MachineKey* key = nullptr;
    if (options.keys) {
        auto found = options.keys->find(header.machine, header.key_id);
        if (found) {
            key = *found;
        } else {
            checked.problem = fail(ErrorKind::operator_needed, "{}: it is sealed: {}", name,
                                   found.error().message)
                                  .value();
        }
    } else {
        checked.problem = fail(ErrorKind::operator_needed,
                               "{}: it is sealed with key {} of machine {}; give the key", name,
                               to_string(header.key_id), to_string(header.machine))
                              .value();
    }
    if (!key) {
        if (!options.without_key) checked.state = HeaderState::locked;
        return;
    }
    checked.opener.emplace(*key, seal::FileIds{header.machine, header.disk, header.segment},
                           header.seal);
    const ByteView covered[] = {disk_bytes_of(disk).first(offsetof(SegmentHeaderDisk, header_tag))};
    if (checked.opener->open_part({seal::SealUse::header, 0}, covered, {}, disk.header_tag, {})) {
        return;
    }
    checked.state = HeaderState::damaged;
    checked.problem =
        fail(ErrorKind::corrupt,
             "{}: header at byte 0: it is not authentic: it was changed, or sealed by another key "
             "than {} of machine {}",
             name, to_string(header.key_id), to_string(header.machine))
            .value();
}

}  // namespace

CheckedHeader read_header(ByteSource& source, const ReadOptions& options) {
    const std::string name = source.name();
    if (source.size() < sizeof(SegmentHeaderDisk)) {
        CheckedHeader cut;
        cut.problem =
            fail(ErrorKind::corrupt, "{}: not a segment: {} bytes are fewer than its header has",
                 name, source.size())
                .value();
        return cut;
    }
    auto disk = read_struct<SegmentHeaderDisk>(source, 0);
    if (!disk) {
        CheckedHeader unread;
        unread.state = HeaderState::unreadable;
        unread.problem = disk.error();
        return unread;
    }
    CheckedHeader checked = check_plain_header(*disk, name);
    if (checked.state == HeaderState::good) open_seal(checked, *disk, name, options);
    return checked;
}

Result<Tail> read_tail(ByteSource& source, CheckedHeader& header) {
    auto footer = read_footer(source);
    if (!footer) return pass(footer);
    auto place = place_tail(*footer, header);
    if (!place) return pass(place);
    Tail tail;
    tail.footer = *footer;
    const uint64_t all = place->index_bytes + place->sections_bytes + place->tag_bytes;
    const ByteSpan bytes = tail.index_bytes.need(all);
    auto read = source.read(footer->index_offset, bytes);
    if (!read) return pass(read);
    const size_t checked = place->index_bytes - kChecksumBytes;
    const auto index = load_disk<IndexHeaderDisk>(bytes.data());
    if (load_le<uint64_t>(bytes.data() + checked) != xxh3_64(bytes.first(checked))) {
        return fail(ErrorKind::corrupt, "its index's checksum is wrong");
    }
    if (index.magic != kIndexMagic || index.entry_count != footer->block_count ||
        index.chain != footer->chain) {
        return fail(ErrorKind::corrupt, "its index is not the one its footer belongs to");
    }
    auto sections = check_sections(bytes.subspan(place->index_bytes, place->sections_bytes),
                                   header.header.features_optional);
    if (!sections) return pass(sections);
    tail.sections = std::move(*sections);
    if (place->tag_bytes != 0) {
        const ByteView tag = bytes.last(kTailTagBytes);
        if (load_le<uint64_t>(tag.data() + kAuthTagBytes) != xxh3_64(tag.first(kAuthTagBytes))) {
            return fail(ErrorKind::corrupt, "the checksum of its tail-tag is wrong");
        }
    }
    if (header.opener) {
        const auto tag = load_disk<seal::AuthTag>(bytes.data() + all - kTailTagBytes);
        const ByteView covered[] = {bytes.first(all - kTailTagBytes), disk_bytes_of(*footer)};
        if (!header.opener->open_part({seal::SealUse::tail, 0}, covered, {}, tag, {})) {
            return fail(ErrorKind::corrupt, "its index and footer are not authentic");
        }
    }
    tail.entries = {reinterpret_cast<const IndexEntryDisk*>(bytes.data() + sizeof index),
                    index.entry_count};
    auto agreed = check_entries(tail, header.header);
    if (!agreed) return pass(agreed);
    return tail;
}

}  // namespace herald::hrl
