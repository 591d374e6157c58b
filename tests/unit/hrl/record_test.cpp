// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/hrl/sample_segments.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

Record range_record(RecordKind kind, uint64_t offset, uint64_t length, ByteView data = {}) {
    Record record;
    record.kind = kind;
    record.position = 1;
    record.offset = offset;
    record.length = length;
    record.data = data;
    return record;
}

}  // namespace

TEST_CASE("every payload survives its encoding and is refused one byte shorter or longer") {
    const auto check = [](const auto& value, const Bytes& bytes, auto decode) {
        auto decoded = decode(bytes);
        REQUIRE(decoded);
        CHECK(*decoded == value);
        for (size_t size = 0; size < bytes.size(); ++size) {
            CHECK_FALSE(decode(Bytes(bytes.begin(), bytes.begin() + ptrdiff_t(size))));
        }
        Bytes longer = bytes;
        longer.push_back(std::byte{0});
        CHECK_FALSE(decode(longer));
    };
    const Tag tag{sample_id(1), 99, TagKind::group, Consistency::application,
                  "Gr\xc3\xbc\xc3\x9f"
                  "e \xe2\x9c\x93"};
    check(tag, encode_tag(tag), decode_tag);
    const ScanBegin begin{5, ScanCause::full};
    check(begin, encode_scan_begin(begin), decode_scan_begin);
    const ScanEnd end{5, true, 17};
    check(end, encode_scan_end(end), decode_scan_end);
    const ModeChange change{StreamMode::map, "the ring was full"};
    check(change, encode_mode_change(change), decode_mode_change);
    const Activation activation{sample_id(2), StreamMode::unordered, "ebpf", "pins lost"};
    check(activation, encode_activation(activation), decode_activation);
}

TEST_CASE("a payload with an unknown value or a set reserved byte is refused") {
    const Bytes tag = encode_tag({sample_id(1), 99, TagKind::manual, Consistency::crash, "x"});
    const auto refused = [&](size_t at, unsigned value) {
        Bytes changed = tag;
        changed[at] = std::byte(value);
        return !decode_tag(changed);
    };
    CHECK(refused(24, 0));
    CHECK(refused(24, 5));
    CHECK(refused(25, 0));
    CHECK(refused(25, 4));
    CHECK(refused(26, 1));
    CHECK(refused(27, 1));
    Bytes end = encode_scan_end({1, false, 0});
    end[16] = std::byte{2};
    CHECK_FALSE(decode_scan_end(end));
}

TEST_CASE("a text must be short UTF-8 without control characters") {
    const auto accepted = [](std::string name) {
        return decode_tag(encode_tag({sample_id(1), 1, TagKind::manual, Consistency::crash, name}))
            .has_value();
    };
    CHECK(accepted(""));
    CHECK(accepted(std::string(255, 'a')));
    CHECK_FALSE(accepted(std::string(256, 'a')));
    CHECK(accepted("\xf0\x9f\x98\x80"));
    for (const char* bad : {"\n", "\x1b[2J", "\x7f", "\xff", "\xc3", "\xc0\x80", "\xed\xa0\x80",
                            "\xf4\x90\x80\x80", "\xe2\x82", "\xc2\x85", "\xe0\x80\x80"}) {
        CHECK_FALSE(accepted(bad));
    }
    CHECK_FALSE(accepted(std::string(1, '\0')));
}

TEST_CASE("only ranges of whole sectors within the largest disk are valid") {
    const Bytes data(1024);
    CHECK(validate(range_record(RecordKind::write, 512, 1024, data)));
    CHECK_FALSE(validate(range_record(RecordKind::write, 511, 1024, data)));
    CHECK_FALSE(validate(range_record(RecordKind::write, 512, 512, data)));
    CHECK_FALSE(validate(range_record(RecordKind::write, 512, 0)));
    CHECK_FALSE(validate(range_record(RecordKind::write, 0, 100, Bytes(100))));
    const Bytes large(HERALD_RECORD_DATA_BYTES_MAX + 512);
    CHECK_FALSE(validate(range_record(RecordKind::write, 0, large.size(), large)));
    for (const RecordKind kind :
         {RecordKind::zeroes, RecordKind::discard, RecordKind::secure_erase, RecordKind::reread}) {
        CHECK(validate(range_record(kind, 0, HERALD_DISK_BYTES_MAX)));
        CHECK_FALSE(validate(range_record(kind, 512, HERALD_DISK_BYTES_MAX)));
        CHECK_FALSE(validate(range_record(kind, HERALD_DISK_BYTES_MAX + 512, 512)));
        CHECK_FALSE(validate(range_record(kind, ~uint64_t(511), 512)));
        CHECK_FALSE(validate(range_record(kind, 0, 0)));
        CHECK_FALSE(validate(range_record(kind, 0, 1024, data)));
    }
    CHECK(validate(range_record(RecordKind::resize, 0, 1 << 20)));
    CHECK_FALSE(validate(range_record(RecordKind::resize, 512, 1 << 20)));
    CHECK_FALSE(validate(range_record(RecordKind::resize, 0, 0)));
    CHECK_FALSE(validate(range_record(RecordKind::resize, 0, HERALD_DISK_BYTES_MAX + 512)));
}

TEST_CASE("a marker with a range, position 0 and unknown kinds are refused") {
    const Bytes mark = encode_scan_begin({1, ScanCause::initial});
    CHECK(validate(range_record(RecordKind::scan_begin, 0, 0, mark)));
    CHECK_FALSE(validate(range_record(RecordKind::scan_begin, 512, 0, mark)));
    CHECK_FALSE(validate(range_record(RecordKind::scan_begin, 0, 512, mark)));
    CHECK_FALSE(validate(range_record(RecordKind::tag, 0, 0, mark)));
    Record record = range_record(RecordKind::zeroes, 0, 512);
    record.position = 0;
    CHECK_FALSE(validate(record));
    CHECK_FALSE(validate(range_record(RecordKind(0), 0, 512)));
    CHECK_FALSE(validate(range_record(RecordKind(12), 0, 512)));
    CHECK_FALSE(validate(range_record(RecordKind(255), 0, 0)));
}
