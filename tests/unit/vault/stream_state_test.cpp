// SPDX-License-Identifier: Apache-2.0
#include "user/vault/stream_state.h"

#include <array>

#include "tests/stream_builder.h"

using namespace herald;
using hrl::StreamMode;
using vault::StreamState;

namespace {

constexpr uint64_t kDisk = 1 << 20;

StreamState state_after(const test::StreamBuilder& stream, StreamState state = {}) {
    state.begin_segment(stream.header().disk_bytes);
    for (auto [record, data] : stream.records()) {
        record.data = data;
        auto observed = state.observe(record);
        REQUIRE(observed);
    }
    return state;
}

test::StreamBuilder stream_of(StreamMode mode) {
    test::StreamBuilder stream(Uuid::random(), Uuid::random(), kDisk);
    stream.activation(mode);
    return stream;
}

// True when a tag lands here.
bool lands(const test::StreamBuilder& stream) { return state_after(stream).refusal().empty(); }

}  // namespace

TEST_CASE("a tag before any session is refused") {
    CHECK(StreamState().refusal() == "no session has begun");
    CHECK(StreamState().state() == "initial sync");
}

TEST_CASE("an unordered stream holds a point only right after a quiescent scan") {
    auto stream = stream_of(StreamMode::unordered);
    CHECK_FALSE(lands(stream));
    stream.scan_begin();
    CHECK_FALSE(lands(stream));
    stream.write(0, 4096, 1);
    CHECK_FALSE(lands(stream));
    auto restless = stream;
    restless.scan_end(1, false);
    CHECK_FALSE(lands(restless));
    CHECK(state_after(restless).state() == "protected");
    stream.scan_end(1, true);
    CHECK(lands(stream));
    // Tags may follow each other.
    stream.tag("a").tag("b");
    CHECK(lands(stream));
    for (int what = 0; what < 5; ++what) {
        auto changed = stream;
        if (what == 0) changed.write(0, 512, 2);
        if (what == 1) changed.zeroes(0, 512);
        if (what == 2) changed.discard(0, 512);
        if (what == 3) changed.scan_begin(2);
        if (what == 4) changed.resize(kDisk / 2);
        CAPTURE(what);
        CHECK_FALSE(lands(changed));
    }
}

TEST_CASE("an ordered stream holds a point anywhere but within a scan") {
    auto stream = stream_of(StreamMode::ordered);
    CHECK_FALSE(lands(stream));
    stream.scan_begin().write(0, 512, 1);
    CHECK_FALSE(lands(stream));
    stream.scan_end(1, false);
    CHECK(lands(stream));
    stream.write(0, 512, 2).discard(512, 512);
    CHECK(lands(stream));
    stream.scan_begin(2);
    CHECK_FALSE(lands(stream));
    stream.scan_begin(3).scan_end(2);
    CHECK_FALSE(lands(stream));
    stream.scan_end(3);
    CHECK(lands(stream));
}

TEST_CASE("catching up makes no point before the whole disk was scanned once") {
    using hrl::ScanCause;
    for (const StreamMode mode : {StreamMode::ordered, StreamMode::unordered}) {
        for (const ScanCause whole : {ScanCause::initial, ScanCause::full, ScanCause::digest}) {
            auto stream = stream_of(mode);
            for (const ScanCause part : {ScanCause::catch_up, ScanCause::reread}) {
                stream.scan_begin(1, part).scan_end(1);
                CHECK(state_after(stream).refusal() == "no scan of the whole disk has ended yet");
                CHECK(state_after(stream).state() == "initial sync");
                CHECK(state_after(stream).cause() == "no scan of the whole disk has ended yet");
            }
            // One that could not read everything is none of the whole disk.
            stream.scan_begin(2, whole).scan_end(2, true, 1);
            stream.scan_begin(3, ScanCause::catch_up).scan_end(3);
            CHECK_FALSE(lands(stream));
            // Nor is one that another session began.
            stream.scan_begin(4, whole).activation(mode).scan_end(4);
            stream.scan_begin(5, ScanCause::catch_up).scan_end(5);
            CHECK_FALSE(lands(stream));
            stream.scan_begin(6, whole);
            CHECK_FALSE(lands(stream));
            stream.scan_end(6);
            CHECK(lands(stream));
            CHECK(state_after(stream).state() == "protected");
            // What was whole once stays so: a later session catches up.
            stream.activation(mode).scan_begin(1, ScanCause::catch_up).scan_end(1);
            CHECK(lands(stream));
            auto again = StreamState::parse(state_after(stream).serialize());
            REQUIRE(again);
            CHECK(*again == state_after(stream));
        }
    }
}

TEST_CASE("an activation makes the stream fuzzy until a scan of its own has ended") {
    for (const StreamMode mode : {StreamMode::ordered, StreamMode::unordered}) {
        auto stream = stream_of(mode);
        stream.scan_begin(1).scan_end(1).scan_begin(2);
        stream.activation(mode);
        CHECK_FALSE(lands(stream));
        CHECK(state_after(stream).state() == "fuzzy");
        // The end of the scan that the session before left open proves nothing.
        stream.scan_end(2);
        CHECK_FALSE(lands(stream));
        stream.scan_begin(1).scan_end(1);
        CHECK(lands(stream));
    }
}

TEST_CASE("a re-read, a growth and a mode change need a scan that began after them") {
    for (int what = 0; what < 4; ++what) {
        CAPTURE(what);
        auto stream = stream_of(StreamMode::ordered);
        stream.scan_begin(1).scan_end(1).scan_begin(2);
        REQUIRE_FALSE(lands(stream));
        if (what == 0) stream.reread(0, 4096);
        if (what == 1) stream.resize(2 * kDisk);
        if (what == 2) stream.mode(StreamMode::map).mode(StreamMode::ordered);
        if (what == 3) stream.mode(StreamMode::unordered);
        stream.scan_end(2);
        CHECK_FALSE(lands(stream));
        CHECK_FALSE(state_after(stream).cause().empty());
        stream.scan_begin(3).scan_end(3);
        CHECK(lands(stream));
    }
}

TEST_CASE("no point lands in a mode that misses data, even after a scan") {
    for (const StreamMode mode : {StreamMode::extents, StreamMode::map}) {
        auto stream = stream_of(mode);
        stream.scan_begin(1).scan_end(1);
        CHECK_FALSE(lands(stream));
    }
}

TEST_CASE("a scan with unreadable blocks leaves the stream fuzzy and says how many") {
    for (const StreamMode mode : {StreamMode::ordered, StreamMode::unordered}) {
        auto stream = stream_of(mode);
        stream.scan_begin(1).scan_end(1, true, 7);
        CHECK_FALSE(lands(stream));
        CHECK(state_after(stream).cause().find("7 blocks") != std::string::npos);
        CHECK(state_after(stream).state() == "initial sync");
        stream.scan_begin(2).scan_end(2);
        CHECK(lands(stream));
    }
}

TEST_CASE("a shrunk disk needs no scan; the size is the tag's") {
    auto stream = stream_of(StreamMode::ordered);
    stream.scan_begin(1).scan_end(1).resize(kDisk / 2);
    CHECK(lands(stream));
    CHECK(state_after(stream).disk_bytes() == kDisk / 2);
}

TEST_CASE("a header with another size counts as a resize that nobody recorded") {
    auto stream = stream_of(StreamMode::ordered);
    stream.scan_begin(1).scan_end(1);
    StreamState state = state_after(stream);
    state.begin_segment(kDisk / 2);
    CHECK(state.refusal().empty());
    state.begin_segment(kDisk);
    CHECK_FALSE(state.refusal().empty());
}

TEST_CASE("scans are not open without bound") {
    auto stream = stream_of(StreamMode::ordered);
    for (uint64_t scan = 1; scan <= HERALD_SCANS_OPEN_MAX; ++scan) stream.scan_begin(scan);
    StreamState state = state_after(stream);
    const Bytes payload = hrl::encode_scan_begin({1000, hrl::ScanCause::full});
    hrl::Record record;
    record.kind = hrl::RecordKind::scan_begin;
    record.data = payload;
    CHECK_FALSE(state.observe(record));
}

TEST_CASE("a state survives its text form, and one of a newer version is refused") {
    auto stream = stream_of(StreamMode::ordered);
    stream.scan_begin(1).write(0, 512, 1).reread(0, 512).scan_begin(2);
    const StreamState state = state_after(stream);
    auto parsed = StreamState::parse(state.serialize());
    REQUIRE(parsed);
    CHECK(*parsed == state);
    CHECK_FALSE(StreamState::parse(R"({"version": 2})"));
    CHECK_FALSE(StreamState::parse("{}"));
    CHECK_FALSE(StreamState::parse("nonsense"));
    CHECK_FALSE(StreamState::parse(R"({"version": 1, "disk_bytes": "x"})"));
}

// Every sequence of five events, against the rule written down a second time and differently: by
// looking back over the whole history instead of keeping a state.
TEST_CASE("of every short sequence of records the state agrees with a look back over them") {
    enum Event { write, begin, end_quiet, end_restless, end_unreadable, activate, reread };
    constexpr int kEvents = 7;
    constexpr int kLength = 5;
    int total = 1;
    for (int i = 0; i < kLength; ++i) total *= kEvents;
    int landed = 0;
    for (const StreamMode mode : {StreamMode::ordered, StreamMode::unordered}) {
        for (int code = 0; code < total; ++code) {
            std::array<int, kLength> events{};
            for (int i = 0, rest = code; i < kLength; ++i, rest /= kEvents)
                events[i] = rest % kEvents;
            test::StreamBuilder stream(Uuid::random(), Uuid::random(), kDisk);
            stream.activation(mode);
            // Every other scan is only of what changed.
            for (int i = 0; i < kLength; ++i) {
                const int event = events[i];
                if (event == write) stream.write(0, 512, 1);
                if (event == begin) {
                    stream.scan_begin(
                        1, i % 2 == 0 ? hrl::ScanCause::digest : hrl::ScanCause::catch_up);
                }
                if (event == end_quiet) stream.scan_end(1, true);
                if (event == end_restless) stream.scan_end(1, false);
                if (event == end_unreadable) stream.scan_end(1, false, 1);
                if (event == activate) stream.activation(mode);
                if (event == reread) stream.reread(0, 512);
            }
            // Looking back: whether a scan of the whole disk ended in any session.
            bool whole = false;
            std::vector<int> begun;
            for (int i = 0; i < kLength; ++i) {
                if (events[i] == activate) begun.clear();
                if (events[i] == begin) begun.push_back(i);
                if (events[i] < end_quiet || events[i] > end_unreadable || begun.empty()) continue;
                if (events[i] != end_unreadable && begun.front() % 2 == 0) whole = true;
                begun.erase(begun.begin());
            }
            // Which scans are open at each moment of this session, oldest first.
            int session = 0;
            for (int i = 0; i < kLength; ++i) {
                if (events[i] == activate) session = i + 1;
            }
            std::vector<int> open;  // where each began
            int need = session;     // a scan that begins here or later has to end
            bool needed = true;
            bool quiet = false;
            for (int i = session; i < kLength; ++i) {
                quiet = false;
                if (events[i] == begin) open.push_back(i);
                if (events[i] == reread) {
                    need = i + 1;
                    needed = true;
                }
                if (events[i] < end_quiet || events[i] > end_unreadable || open.empty()) continue;
                const int began = open.front();
                open.erase(open.begin());
                if (events[i] == end_unreadable) {
                    need = i + 1;
                    needed = true;
                    continue;
                }
                if (began >= need) needed = false;
                quiet = events[i] == end_quiet && open.empty() && !needed;
            }
            const bool expected =
                whole && !needed && open.empty() && (mode == StreamMode::ordered || quiet);
            const bool actual = lands(stream);
            landed += actual;
            if (actual != expected) {
                CAPTURE(code, int(mode), expected);
                CHECK(actual == expected);
            }
        }
    }
    CHECK(landed > 500);
}
