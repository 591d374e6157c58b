// SPDX-License-Identifier: Apache-2.0
// Golden files: what this code writes today, byte for byte, and what docs/formats/hrl.md shows.
// With HERALD_GOLDEN_WRITE=1 the golden files are written anew; a difference is then a change of
// format and needs a word in the specification.
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

void compare_with_golden(const char* name, const Bytes& written) {
    if (std::getenv("HERALD_GOLDEN_WRITE")) REQUIRE(replace_file(kGolden / name, written, 0644));
    auto golden = read_file(kGolden / name, 1 << 20);
    REQUIRE(golden);
    CHECK(to_hex(written) == to_hex(*golden));
    CHECK(verify_segment(memory_source(*golden, name)));
}

// Bytes of every line "00000010  68 65 ..." of a text, which must follow one another.
Bytes bytes_of_hex_dump(std::istream& text) {
    static const std::regex kLine("^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?){1,16})(?: .*)?$");
    Bytes bytes;
    std::string line;
    while (std::getline(text, line)) {
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
}

TEST_CASE("the worked example of the specification is the golden file") {
    std::ifstream text(HERALD_SOURCE_DIR "/docs/formats/hrl.md");
    REQUIRE(text);
    auto golden = read_file(kGolden / "example.hrl", 1 << 20);
    REQUIRE(golden);
    CHECK(to_hex(bytes_of_hex_dump(text)) == to_hex(*golden));
}
