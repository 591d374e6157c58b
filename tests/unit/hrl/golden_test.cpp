// SPDX-License-Identifier: Apache-2.0
// Golden files: what this code writes today, byte for byte, and what docs/formats/hrl.md shows.
// The format is frozen: what is in the files is read for good. With HERALD_GOLDEN_WRITE=1 files
// that are missing are written; one that is there is never changed.
#include <fstream>
#include <regex>

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

// The specification's incompressible sector: byte i is bits 16 to 23 of the i-th number of a
// linear congruential sequence.
Bytes noise_sector() {
    Bytes bytes(512);
    uint32_t x = 1;
    for (std::byte& b : bytes) {
        x = x * 1103515245u + 12345u;
        b = std::byte(x >> 16);
    }
    return bytes;
}

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

Segment every_kind() {
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

void compare_with_golden(const char* name, const Bytes& written) {
    if (std::getenv("HERALD_GOLDEN_WRITE") && !std::filesystem::exists(kGolden / name)) {
        REQUIRE(replace_file(kGolden / name, written, 0644));
    }
    auto golden = read_file(kGolden / name, 1 << 20);
    REQUIRE(golden);
    CHECK(to_hex(written) == to_hex(*golden));
    const seal::Keyring keys = golden_keys();
    const ReadOptions options{.keys = &keys, .layers = true};
    CHECK(verify_segment(memory_source(*golden, name), nullptr, options));
    const ReadBack back = read_back(*golden, options);
    CHECK(back.records == read_back(written, options).records);
    CHECK(back.records.size() >= 3);
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

TEST_CASE("the golden segments are what this code writes, byte for byte") {
    compare_with_golden("example.hrl", example().bytes);
    compare_with_golden("every_kind.hrl", every_kind().bytes);
    compare_with_golden("example_sealed.hrl", example_sealed().bytes);
    compare_with_golden("example_by_block.hrl", example_by_block().bytes);
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
