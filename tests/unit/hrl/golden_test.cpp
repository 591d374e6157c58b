// SPDX-License-Identifier: Apache-2.0
// Golden files: they are read for good as the text beside each says; what this code writes today is
// the same; docs/formats/hrl.md shows some of them. The format is frozen. With
// HERALD_GOLDEN_WRITE=1 files that are missing are written; one that is there is never changed.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <regex>

#include "tests/forge_segment.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/digest.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

constexpr uint64_t kNoon = 1'709'208'000'000'000'000ull;  // 2024-02-29T12:00:00Z
const std::filesystem::path kGolden = HERALD_SOURCE_DIR "/tests/golden/hrl";

class Stream {
  public:
    void add(RecordKind kind, uint64_t offset, uint64_t length, const Bytes& data = {}) {
        Record record;
        record.kind = kind;
        record.position = records_.size() + 1;
        record.offset = offset;
        record.length = length;
        record.time_ns = kNoon + records_.size() * 1'000'000;
        record.data = data;
        records_.emplace_back(record);
    }
    const std::vector<OwnedRecord>& records() const { return records_; }

  private:
    std::vector<OwnedRecord> records_;
};

SegmentHeader golden_header() {
    SegmentHeader header = sample_header(512);
    header.created_ns = kNoon;
    return header;
}

// The specification's noise: byte i is bits 16 to 23 of the i-th number of a linear congruential
// sequence that begins with x.
Bytes noise(uint32_t x, size_t size = 512) {
    Bytes bytes(size);
    for (std::byte& b : bytes) {
        x = x * 1103515245u + 12345u;
        b = std::byte(x >> 16);
    }
    return bytes;
}

Bytes noise_sector() { return noise(1); }

// The worked example: an LZ4 block, a raw one, and one with a tag.
Segment example() {
    Stream stream;
    stream.add(RecordKind::activation, 0, 0,
               encode_activation({sample_id(0x55), StreamMode::unordered, "ebpf", ""}));
    stream.add(RecordKind::zeroes, 65536, 65536);
    stream.add(RecordKind::write, 4096, 512, noise_sector());
    stream.add(
        RecordKind::tag, 0, 0,
        encode_tag({sample_id(0x66), kNoon, TagKind::manual, Consistency::filesystem, "noon"}));
    return write_segment(golden_header(), stream.records());
}

// Bytes 00, 01, ... as a machine's key: known to everyone, so good for nothing but examples.
seal::MachineKey golden_key() {
    seal::MachineKey key{sample_id(0x11), sample_id(0x77), seal::Secret(seal::kKeyBytes)};
    for (size_t i = 0; i < seal::kKeyBytes; ++i) key.key.span()[i] = std::byte(i);
    return key;
}

seal::Keyring golden_keys() {
    seal::Keyring keys;
    keys.add(golden_key());
    return keys;
}

Segment every_kind(bool sealed) {
    Stream stream;
    stream.add(RecordKind::activation, 0, 0,
               encode_activation({sample_id(0x55), StreamMode::ordered, "dm_cbt", "map lost"}));
    stream.add(RecordKind::scan_begin, 0, 0, encode_scan_begin({1, ScanCause::initial}));
    stream.add(RecordKind::write, 0, 1024, Bytes(1024, std::byte{0xab}));
    stream.add(RecordKind::zeroes, 1024, 4096);
    stream.add(RecordKind::discard, 65536, 65536);
    stream.add(RecordKind::secure_erase, 131072, 512);
    stream.add(RecordKind::reread, 8192, 512);
    stream.add(RecordKind::write, 8192, 512, noise_sector());
    stream.add(RecordKind::mode_change, 0, 0,
               encode_mode_change({StreamMode::map, "the ring was full"}));
    stream.add(RecordKind::resize, 0, 2 << 20);
    stream.add(RecordKind::scan_end, 0, 0, encode_scan_end({1, true, 2}));
    stream.add(RecordKind::tag, 0, 0,
               encode_tag({sample_id(0x66), kNoon, TagKind::final_, Consistency::application,
                           "the last one"}));
    if (!sealed) return write_segment(golden_header(), stream.records());
    const seal::MachineKey key = golden_key();
    return finish_segment(SegmentWriter(golden_header(), {SealedBy::server, &key, sample_id(0x99)}),
                          stream.records());
}

// The worked example of sealing: a block without data, and one with.
Segment example_sealed() {
    Stream stream;
    stream.add(
        RecordKind::tag, 0, 0,
        encode_tag({sample_id(0x66), kNoon, TagKind::manual, Consistency::filesystem, "noon"}));
    stream.add(RecordKind::zeroes, 65536, 65536);
    stream.add(RecordKind::write, 4096, 512, Bytes(512, std::byte{0x5a}));
    const seal::MachineKey key = golden_key();
    SegmentWriter writer(golden_header(), {SealedBy::source, &key, sample_id(0x88)});
    return finish_segment(std::move(writer), stream.records());
}

// The worked example of a layer: its three parts, two versions of a granule, a cut write.
Segment example_by_block() {
    SegmentHeader header = golden_header();
    header.contents = Contents::delta_layer;
    header.order = RecordOrder::by_block_then_position;
    header.granule_log2 = 12;
    std::vector<OwnedRecord> records;
    const auto add = [&](RecordKind kind, uint64_t position, uint64_t offset, uint64_t length,
                         const Bytes& data = {}) {
        Record record;
        record.kind = kind;
        record.position = position;
        record.offset = offset;
        record.length = length;
        record.time_ns = kNoon + position * 1'000'000;
        record.data = data;
        records.emplace_back(record);
    };
    add(RecordKind::tag, 40, 0, 0,
        encode_tag({sample_id(0x66), kNoon, TagKind::manual, Consistency::filesystem, "noon"}));
    add(RecordKind::zeroes, 20, 65536, 65536);
    add(RecordKind::write, 11, 4096, 512, Bytes(512, std::byte{0x11}));
    add(RecordKind::write, 30, 4096, 512, Bytes(512, std::byte{0x30}));
    add(RecordKind::write, 25, 8192, 512, Bytes(512, std::byte{0x25}));
    SegmentWriter writer(header);
    for (const OwnedRecord& record : records) REQUIRE(writer.append(record.view()));
    auto layer = std::move(writer).finish(50);
    REQUIRE(layer);
    return std::move(*layer);
}

OwnedRecord record_at(RecordKind kind, uint64_t position, uint64_t offset, uint64_t length,
                      const Bytes& data = {}) {
    Record record;
    record.kind = kind;
    record.position = position;
    record.offset = offset;
    record.length = length;
    record.time_ns = kNoon + position * 1'000'000;
    record.data = data;
    return OwnedRecord(record);
}

Segment write_sorted(SegmentWriter writer, const SegmentHeader& header,
                     std::vector<OwnedRecord> records, uint64_t covered_to) {
    std::sort(records.begin(), records.end(), [&](const OwnedRecord& a, const OwnedRecord& b) {
        return order_key(header, a.view()) < order_key(header, b.view());
    });
    for (const OwnedRecord& record : records) REQUIRE(writer.append(record.view()));
    auto layer = std::move(writer).finish(covered_to);
    REQUIRE(layer);
    return std::move(*layer);
}

// Everything that a layer by block can hold beside what its worked example shows.
Segment layer_by_block(bool sealed) {
    SegmentHeader header = golden_header();
    header.contents = Contents::delta_layer;
    header.order = RecordOrder::by_block_then_position;
    header.granule_log2 = 12;
    header.first_position = 5;
    const std::vector<OwnedRecord> records = {
        record_at(RecordKind::activation, 5, 0, 0,
                  encode_activation({sample_id(0x55), StreamMode::unordered, "ebpf", ""})),
        record_at(RecordKind::scan_begin, 6, 0, 0, encode_scan_begin({3, ScanCause::reread})),
        record_at(RecordKind::resize, 7, 0, 2 << 20),
        record_at(RecordKind::mode_change, 8, 0, 0,
                  encode_mode_change({StreamMode::extents, "the ring was full"})),
        record_at(RecordKind::scan_end, 30, 0, 0, encode_scan_end({3, false, 1})),
        record_at(RecordKind::reread, 9, 12288, 8192),
        record_at(RecordKind::discard, 10, 65536, 131072),
        record_at(RecordKind::secure_erase, 11, 65536, 65536),
        record_at(RecordKind::zeroes, 12, 4096, 8192),
        record_at(RecordKind::write, 13, 4096, 1024, noise(13, 1024)),
        record_at(RecordKind::write, 14, 4096, 512, noise(14)),
        record_at(RecordKind::write, 14, 8192, 512, noise(15)),
        record_at(RecordKind::discard, 15, 5120, 512),
        record_at(RecordKind::secure_erase, 16, 0, 4096),
        record_at(RecordKind::reread, 17, 20480, 512),
        record_at(RecordKind::zeroes, 18, 24576, 4096)};
    const seal::MachineKey key = golden_key();
    SegmentWriter writer = sealed ? SegmentWriter(header, {SealedBy::source, &key, sample_id(0x9a)})
                                  : SegmentWriter(header);
    return write_sorted(std::move(writer), header, records, 40);
}

Segment image_layer() {
    SegmentHeader header = golden_header();
    header.contents = Contents::image_layer;
    header.order = RecordOrder::by_block_then_position;
    header.granule_log2 = 9;
    return write_sorted(SegmentWriter(header), header,
                        {record_at(RecordKind::discard, 4, 65536, 65536),
                         record_at(RecordKind::zeroes, 9, 4096, 512),
                         record_at(RecordKind::secure_erase, 2, 131072, 512),
                         record_at(RecordKind::write, 8, 512, 512, noise(8)),
                         record_at(RecordKind::write, 3, 0, 512, Bytes(512, std::byte{3}))},
                        20);
}

// A thinned segment: what is left stands by position, a cut record in two pieces.
Segment delta_by_position() {
    SegmentHeader header = golden_header();
    header.contents = Contents::delta_layer;
    header.first_position = 2;
    return write_sorted(SegmentWriter(header), header,
                        {record_at(RecordKind::write, 3, 4096, 512, noise(3)),
                         record_at(RecordKind::write, 3, 8192, 512, noise(4)),
                         record_at(RecordKind::zeroes, 9, 0, 65536),
                         record_at(RecordKind::write, 20, 1024, 512, noise(20))},
                        25);
}

Segment largest_record() {
    Stream stream;
    stream.add(RecordKind::write, 512, 512, noise(2));
    stream.add(RecordKind::write, 0, 1 << 20, Bytes(1 << 20));
    stream.add(RecordKind::write, 4096, 512, noise(3));
    return write_segment(golden_header(), stream.records());
}

// Two blocks, the first with seven writes; neither compresses.
Segment several_writes() {
    SegmentHeader header = golden_header();
    header.block_bytes = 4096;
    header.previous_segment = sample_id(0x32);
    header.first_position = 100;
    std::vector<OwnedRecord> records;
    for (uint32_t n = 0; n < 9; ++n) {
        records.push_back(record_at(RecordKind::write, 100 + n, 8192 - 512 * n, 512, noise(n)));
    }
    return write_segment(header, records);
}

// The file as a later version might have written it: a feature that may be overlooked, its bytes in
// the header and two sections. Sealed, with the tags that its writer would have made.
Bytes with_optional_feature(Bytes bytes) {
    constexpr uint32_t kBit = 5;
    auto header = load_disk<SegmentHeaderDisk>(bytes.data());
    header.features_optional = 1u << kBit;
    for (size_t i = 0; i < sizeof header.reserved_b; ++i) header.reserved_b[i] = uint8_t(i + 1);
    std::optional<seal::FileSealer> sealer;
    if (header.sealed_by != 0) {
        sealer.emplace(golden_key(),
                       seal::FileIds{Uuid{header.machine}, Uuid{header.disk}, Uuid{header.segment}},
                       Uuid{header.seal});
        const ByteView covered[] = {
            disk_bytes_of(header).first(offsetof(SegmentHeaderDisk, header_tag))};
        header.header_tag = sealer->seal_part({seal::SealUse::header, 0}, covered, {}, {});
    }
    std::memcpy(bytes.data(), &header, sizeof header);
    herald::test::forge_segment(bytes);

    Bytes sections;
    for (const std::string_view content : {"what a later version knows", ""}) {
        const SectionHeaderDisk section{kSectionMagic, kBit, content.size()};
        const size_t begin = sections.size();
        sections.append(disk_bytes_of(section));
        sections.append(as_bytes(content));
        sections.append(disk_bytes_of(xxh3_64(ByteView(sections).subspan(begin))));
    }
    auto footer = load_disk<FooterDisk>(bytes.data() + bytes.size() - sizeof(FooterDisk));
    footer.file_bytes += sections.size();
    footer.checksum = xxh3_64(disk_bytes_of(footer).first(offsetof(FooterDisk, checksum)));
    bytes.resize(bytes.size() - sizeof footer - (sealer ? kTailTagBytes : 0));
    bytes.append(sections);
    if (sealer) {
        const ByteView tail[] = {ByteView(bytes).subspan(footer.index_offset),
                                 disk_bytes_of(footer)};
        const auto tag = sealer->seal_part({seal::SealUse::tail, 0}, tail, {}, {});
        bytes.append(tag);
        bytes.append(disk_bytes_of(xxh3_64(tag)));
    }
    bytes.append(disk_bytes_of(footer));
    return bytes;
}

Bytes with_required_feature(Bytes bytes) {
    bytes[offsetof(SegmentHeaderDisk, features_required) + 3] = std::byte{0x80};
    herald::test::forge_segment(bytes);
    return bytes;
}

Bytes cut(Bytes bytes, size_t behind) {
    bytes.resize(bytes.size() - behind);
    return bytes;
}

ReadOptions golden_options() {
    static const seal::Keyring keys = golden_keys();
    return {.keys = &keys, .layers = true};
}

// What a file says, as text: the same lines that tests/differential/compare_readers.py makes of
// what the Python reader says.
std::string text_of(ByteView bytes) {
    auto source = memory_source(bytes, "golden");
    const CheckedHeader checked = read_header(*source, golden_options());
    auto reader = SegmentReader::open(std::move(source), golden_options());
    if (!reader) {
        return fmt::format("END refused {}\n",
                           checked.state == HeaderState::newer ? "newer" : "damaged");
    }
    const SegmentHeader& h = reader->header();
    std::string text = fmt::format(
        "HEADER contents={} order={} granule_log2={} sealed_by={} optional={} block_bytes={}\n"
        "IDS machine={} disk={} segment={} previous={} key_id={} seal={}\n"
        "STREAM epoch={} first_position={} disk_bytes={} created_ns={}\n",
        uint8_t(h.contents), uint8_t(h.order), h.granule_log2, uint8_t(h.sealed_by),
        h.features_optional, h.block_bytes, to_string(h.machine), to_string(h.disk),
        to_string(h.segment), to_string(h.previous_segment), to_string(h.key_id), to_string(h.seal),
        h.epoch, h.first_position, h.disk_bytes, h.created_ns);
    if (const auto covered = reader->last_position()) {
        text += fmt::format("TAIL last_position={} blocks={}\n", *covered, reader->blocks().size());
    }
    for (const SectionHeaderDisk& section : reader->sections()) {
        text += fmt::format("SECTION {} {}\n", section.kind, section.bytes);
    }
    uint64_t last = h.first_position - 1;
    for (;;) {
        auto next = reader->next();
        if (!next) return text + fmt::format("END damaged {}\n", last);
        if (!*next) break;
        const Record& record = **next;
        last = record.position;
        text += fmt::format("{} {} {} {} {} {:016x}\n", unsigned(record.kind), record.position,
                            record.offset, record.length, record.time_ns, xxh3_64(record.data));
    }
    return text + fmt::format("END {} {}\n", reader->whole() ? "whole" : "torn", last);
}

// True when LZ4 made some of the file: its bytes are then that compressor's choice.
bool is_compressed(ByteView bytes) {
    size_t at = sizeof(SegmentHeaderDisk);
    while (bytes.size() - at >= sizeof(BlockHeaderDisk)) {
        const auto block = load_disk<BlockHeaderDisk>(bytes.data() + at);
        if (block.magic != kBlockMagic ||
            block_file_bytes(block.stored_bytes) > bytes.size() - at) {
            break;
        }
        if (block.codec == uint8_t(Codec::lz4)) return true;
        at += block_file_bytes(block.stored_bytes);
    }
    return false;
}

// All that the index says of the blocks but where they lie and how long they became.
std::vector<IndexEntryDisk> blocks_before_compression(ByteView bytes) {
    auto reader = SegmentReader::open(memory_source(bytes, "golden"), golden_options());
    REQUIRE(reader);
    std::vector<IndexEntryDisk> blocks(reader->blocks().begin(), reader->blocks().end());
    for (IndexEntryDisk& block : blocks) block.file_offset = block.stored_bytes = 0;
    return blocks;
}

void write_if_missing(const std::filesystem::path& path, ByteView bytes) {
    if (std::getenv("HERALD_GOLDEN_WRITE") && !std::filesystem::exists(path)) {
        REQUIRE(replace_file(path, bytes, 0644));
    }
}

void compare_with_golden(const std::string& name, const Bytes& written) {
    INFO(name);
    const std::filesystem::path text_path = kGolden / (name + ".txt");
    write_if_missing(kGolden / name, written);
    write_if_missing(text_path, as_bytes(text_of(written)));
    auto golden = read_file(kGolden / name, 1 << 20);
    auto text = read_file(text_path, 1 << 20);
    REQUIRE(golden);
    REQUIRE(text);
    CHECK(text_of(*golden) == as_text(*text));
    if (!is_compressed(*golden)) {
        CHECK(to_hex(written) == to_hex(*golden));
        return;
    }
    // The installed LZ4 may choose other matches than that of the day: what it was given counts.
    constexpr size_t kHeader = sizeof(SegmentHeaderDisk);
    CHECK(text_of(written) == as_text(*text));
    CHECK(to_hex(ByteView(written).first(kHeader)) == to_hex(ByteView(*golden).first(kHeader)));
    CHECK(blocks_before_compression(written) == blocks_before_compression(*golden));
}

// Bytes of every line "00000010  68 65 ..." between the heading that names a golden file and the
// next one; they must follow one another.
Bytes bytes_of_hex_dump(std::istream& text, const std::string& name) {
    static const std::regex kLine("^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?){1,16})(?: .*)?$");
    Bytes bytes;
    std::string line;
    bool is_here = false;
    while (std::getline(text, line)) {
        if (line.starts_with("#")) is_here = line.find("`" + name + "`") != std::string::npos;
        if (!is_here) continue;
        std::smatch match;
        if (!std::regex_match(line, match, kLine)) continue;
        REQUIRE(std::stoul(match[1], nullptr, 16) == bytes.size());
        std::istringstream pairs(match[2]);
        for (std::string pair; pairs >> pair;) {
            bytes.push_back(std::byte(std::stoul(pair, nullptr, 16)));
        }
    }
    return bytes;
}

}  // namespace

TEST_CASE("the golden files read as the text beside them, and are what this code writes") {
    compare_with_golden("example.hrl", example().bytes);
    compare_with_golden("every_kind.hrl", every_kind(false).bytes);
    compare_with_golden("every_kind_sealed.hrl", every_kind(true).bytes);
    compare_with_golden("example_sealed.hrl", example_sealed().bytes);
    compare_with_golden("example_by_block.hrl", example_by_block().bytes);
    compare_with_golden("layer_by_block.hrl", layer_by_block(false).bytes);
    compare_with_golden("layer_sealed.hrl", layer_by_block(true).bytes);
    compare_with_golden("image_layer.hrl", image_layer().bytes);
    compare_with_golden("delta_by_position.hrl", delta_by_position().bytes);
    compare_with_golden("largest_record.hrl", largest_record().bytes);
    compare_with_golden("several_writes.hrl", several_writes().bytes);
    compare_with_golden("optional_feature.hrl", with_optional_feature(several_writes().bytes));
    compare_with_golden("optional_feature_sealed.hrl",
                        with_optional_feature(layer_by_block(true).bytes));
}

TEST_CASE("the golden files that are not to be whole are refused as the text beside them says") {
    // In the second block, and in the index.
    const Bytes whole = several_writes().bytes;
    const size_t tail_bytes = index_file_bytes(2) + sizeof(FooterDisk);
    compare_with_golden("torn.hrl", cut(whole, tail_bytes + 100));
    compare_with_golden("torn_in_index.hrl", cut(whole, tail_bytes - 100));
    compare_with_golden("required_feature.hrl", with_required_feature(whole));
    auto refused = read_file(kGolden / "required_feature.hrl", 1 << 20);
    REQUIRE(refused);
    const ReadBack back = read_back(*refused, golden_options());
    CHECK(back.kind == ErrorKind::operator_needed);
    CHECK(back.error.find("0x80000000") != std::string::npos);
}

TEST_CASE("every golden file has its text, is compared, and some are compared byte for byte") {
    const std::vector<std::string> bytewise = {"several_writes.hrl",
                                               "optional_feature.hrl",
                                               "optional_feature_sealed.hrl",
                                               "layer_sealed.hrl",
                                               "torn.hrl",
                                               "required_feature.hrl"};
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
        const std::string name = entry.path().filename();
        if (entry.path().extension() != ".hrl") continue;
        ++files;
        INFO(name);
        CHECK(std::filesystem::exists(kGolden / (name + ".txt")));
        auto golden = read_file(entry.path(), 1 << 20);
        REQUIRE(golden);
        const bool named = std::find(bytewise.begin(), bytewise.end(), name) != bytewise.end();
        if (named) CHECK_FALSE(is_compressed(*golden));
    }
    CHECK(files == 16);
}

TEST_CASE("the worked examples of the specification are the golden files") {
    for (const char* name : {"example.hrl", "example_sealed.hrl", "example_by_block.hrl"}) {
        INFO(name);
        std::ifstream text(HERALD_SOURCE_DIR "/docs/formats/hrl.md");
        REQUIRE(text);
        auto golden = read_file(kGolden / name, 1 << 20);
        REQUIRE(golden);
        CHECK(to_hex(bytes_of_hex_dump(text, name)) == to_hex(*golden));
    }
}
