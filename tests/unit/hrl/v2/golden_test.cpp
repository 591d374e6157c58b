// SPDX-License-Identifier: Apache-2.0
// The golden log: what LogWriter writes today, byte for byte, and what docs/formats/mshrl.md
// shows. With HERALD_GOLDEN_WRITE=1 the file is written anew.
#include <fstream>
#include <regex>
#include <sstream>

#include "tests/unit/hrl/v2/sample_logs.h"
#include "user/base/digest.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::v2;
using namespace herald::hrl::v2::test;

namespace {

const std::filesystem::path kGolden = HERALD_SOURCE_DIR "/tests/golden/mshrl/example.hrl";

const std::vector<Write>& example_writes() {
    static const std::vector<Write> kWrites{{1 << 20, Bytes(1024, std::byte{0xab}), kLeapDay + 1},
                                            {8192, Bytes(512, std::byte{0xcd}), kLeapDay + 2}};
    return kWrites;
}

Bytes example() {
    LogHeader header;
    header.time = kLeapDay;
    header.creator_application = {'h', 'r', 'l', ' '};
    header.creator_version = 0x00010000;
    header.metadata_bytes = 512;
    header.id = *Uuid::parse("33333333-4444-5555-6666-777777777777");
    header.previous_id = *Uuid::parse("22222222-4444-5555-6666-777777777777");
    Bytes bytes;
    auto sink = memory_sink(bytes);
    auto writer = LogWriter::open(*sink, header);
    REQUIRE(writer);
    for (const Write& write : example_writes()) {
        REQUIRE(writer->append(write.offset, write.data, write.time));
    }
    REQUIRE(writer->finish());
    return bytes;
}

// Bytes of every line "00000010  68 65 ..." of a text; a line "*" repeats the one before it up to
// the offset of the one after it.
Bytes bytes_of_hex_dump(std::istream& text) {
    static const std::regex kLine("^([0-9a-f]{8})  ((?:[0-9a-f]{2} ?){1,16})(?: .*)?$");
    Bytes bytes;
    bool repeat = false;
    std::string line;
    while (std::getline(text, line)) {
        if (line == "*") {
            repeat = true;
            continue;
        }
        std::smatch match;
        if (!std::regex_match(line, match, kLine)) continue;
        const size_t offset = std::stoul(match[1], nullptr, 16);
        while (repeat && bytes.size() < offset) {
            const Bytes last(bytes.end() - 16, bytes.end());
            bytes.insert(bytes.end(), last.begin(), last.end());
        }
        repeat = false;
        REQUIRE(offset == bytes.size());
        std::istringstream pairs(match[2]);
        for (std::string pair; pairs >> pair;) {
            bytes.push_back(std::byte(std::stoul(pair, nullptr, 16)));
        }
    }
    return bytes;
}

}  // namespace

TEST_CASE("the golden log is what the writer writes, byte for byte, and reads back") {
    const Bytes written = example();
    if (std::getenv("HERALD_GOLDEN_WRITE")) REQUIRE(replace_file(kGolden, written, 0644));
    auto golden = read_file(kGolden, 1 << 20);
    REQUIRE(golden);
    CHECK(to_hex(written) == to_hex(*golden));
    const ReadBack back = read_back(*golden);
    CHECK(back.whole);
    CHECK(back.writes == example_writes());
}

TEST_CASE("the worked example of the replica log's specification is the golden file") {
    std::ifstream text(HERALD_SOURCE_DIR "/docs/formats/mshrl.md");
    REQUIRE(text);
    auto golden = read_file(kGolden, 1 << 20);
    REQUIRE(golden);
    CHECK(to_hex(bytes_of_hex_dump(text)) == to_hex(*golden));
}
