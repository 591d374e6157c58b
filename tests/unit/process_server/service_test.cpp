// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/service.h"

#include <atomic>
#include <thread>

#include "tests/service_fixture.h"
#include "user/process_server/upload.h"
#include "user/vault/restore.h"
#include "user/vault/restore_target.h"

using namespace herald;
using test::outcome_of;
using test::ServiceFixture;

namespace {

constexpr uint64_t kDisk = 16 * HERALD_BLOCK_BYTES;

struct Sample {
    test::TempDir dir;
    ServiceFixture server{dir.path()};
    Uuid machine = Uuid::random();
    Uuid disk = Uuid::random();
    test::StreamBuilder stream{machine, disk, kDisk};

    Sample() {
        auto opened = server.open();
        if (!opened) FAIL(opened.error().message);
        session(Uuid::random());
        stream.activation();
    }
    wire::SessionGrant session(const Uuid& id) {
        auto response = server.ask_session(machine, disk, id, kDisk);
        REQUIRE(response.status == 200);
        auto grant = wire::decode_session_grant(as_text(response.body));
        REQUIRE(grant);
        return *grant;
    }
    hrl::Segment next(uint8_t value) { return stream.write(0, 4096, value).segment(); }
    std::string stored() { return "stored " + std::to_string(stream.position()); }
};

}  // namespace

TEST_CASE("segments in order are stored, acknowledged, and the same again acknowledged alike") {
    Sample sample;
    const auto one = sample.next(1);
    const std::string after_one = sample.stored();
    CHECK(outcome_of(sample.server.put(one)) == after_one);
    const auto two = sample.next(2);
    CHECK(outcome_of(sample.server.put(two)) == sample.stored());
    CHECK(outcome_of(sample.server.put(one)) == sample.stored());
    CHECK(outcome_of(sample.server.put(two)) == sample.stored());
    REQUIRE(sample.server.open());
    CHECK(outcome_of(sample.server.put(two)) == sample.stored());
    CHECK(sample.server.objects() == 2);
}

TEST_CASE("segments ahead of the head wait; the head acknowledges them all") {
    Sample sample;
    std::vector<hrl::Segment> segments;
    for (unsigned i = 0; i < HERALD_WINDOW_SEGMENTS + 2; ++i) {
        segments.push_back(sample.next(uint8_t(i)));
    }
    for (unsigned i = HERALD_WINDOW_SEGMENTS; i > 0; --i) {
        CHECK(outcome_of(sample.server.put(segments[i])) == "stored 0");
    }
    CHECK(outcome_of(sample.server.put(segments.back())) == "409 ahead");
    CHECK(outcome_of(sample.server.put(segments[0])) ==
          "stored " + std::to_string(segments[HERALD_WINDOW_SEGMENTS].last_position));
    CHECK(outcome_of(sample.server.put(segments.back())) == sample.stored());
}

TEST_CASE("what was held and not acknowledged is garbage after a restart, and comes again") {
    Sample sample;
    const auto one = sample.next(1);
    const auto two = sample.next(2);
    CHECK(outcome_of(sample.server.put(two)) == "stored 0");
    CHECK(sample.server.objects() == 1);
    REQUIRE(sample.server.open());
    CHECK(sample.server.service->garbage_removed() == 1);
    CHECK(sample.server.objects() == 0);
    CHECK(outcome_of(sample.server.put(two)) == "stored 0");
    CHECK(outcome_of(sample.server.put(one)) == sample.stored());
}

TEST_CASE("a catalog without its store is refused: nothing more is acknowledged beside it") {
    Sample sample;
    const auto one = sample.next(1);
    REQUIRE(sample.server.put(one).status == 200);
    sample.server.close();
    // As when the store's file system is not mounted.
    std::filesystem::rename(sample.dir.path() / "store", sample.dir.path() / "elsewhere");
    const auto opened = sample.server.open();
    REQUIRE_FALSE(opened);
    CHECK(opened.error().kind == ErrorKind::operator_needed);
    CHECK(opened.error().message.find("mounted") != std::string::npos);
    std::filesystem::remove_all(sample.dir.path() / "store");
    std::filesystem::rename(sample.dir.path() / "elsewhere", sample.dir.path() / "store");
    REQUIRE(sample.server.open());
    const auto two = sample.next(2);
    CHECK(outcome_of(sample.server.put(two)) == sample.stored());
}

TEST_CASE("other content at stored or held positions diverges and changes nothing") {
    Sample sample;
    auto other = sample.stream;
    const auto one = sample.next(1);
    REQUIRE(sample.server.put(one).status == 200);
    CHECK(outcome_of(sample.server.put(other.write(0, 4096, 99).segment())) == "409 diverged");
    // Whole, but following a segment that is not the stored one.
    CHECK(outcome_of(sample.server.put(other.write(0, 4096, 98).segment())) == "409 diverged");
    CHECK(sample.server.objects() == 1);
    CHECK((*sample.server.catalog().disk(sample.disk))->head_segment == one.header.segment);
}

TEST_CASE("whoever asks for the head is told what a segment's answer would say") {
    Sample sample;
    const auto one = sample.next(1);
    const auto look = [&](const Uuid& machine, const char* epoch) {
        auto head = ServiceFixture::machine_head(machine, "GET",
                                                 ServiceFixture::disk_path(sample.disk, "head"));
        if (*epoch) head.headers[wire::kHeaderEpoch] = epoch;
        return sample.server.send(head, {});
    };
    CHECK(outcome_of(look(sample.machine, "1")) == "stored 0");
    REQUIRE(sample.server.put(one).status == 200);
    const auto ack = wire::decode_segment_ack(as_text(look(sample.machine, "1").body));
    REQUIRE(ack);
    CHECK(ack->stored == one.last_position);
    CHECK(ack->head_segment == one.header.segment);
    CHECK(look(sample.machine, "").status == 400);
    CHECK(outcome_of(look(sample.machine, "0")) == "409 fenced");
    CHECK(look(Uuid::random(), "1").status == 403);
    sample.session(Uuid::random());
    CHECK(outcome_of(look(sample.machine, "1")) == "409 fenced");
    CHECK(outcome_of(look(sample.machine, "2")) == sample.stored());
}

TEST_CASE("a superseded session changes nothing afterwards") {
    Sample sample;
    const auto one = sample.next(1);
    REQUIRE(sample.server.put(one).status == 200);
    const auto two = sample.next(2);
    const auto three = sample.next(3);
    REQUIRE(outcome_of(sample.server.put(three)) == "stored " + std::to_string(one.last_position));
    CHECK(sample.server.objects() == 2);
    const Uuid newer = Uuid::random();
    const auto grant = sample.session(newer);
    CHECK(grant.epoch == 2);
    CHECK(grant.head == one.last_position);
    CHECK(grant.head_segment == one.header.segment);
    CHECK(grant.window_segments == HERALD_WINDOW_SEGMENTS);
    CHECK(sample.server.objects() == 1);
    for (int round = 0; round < 2; ++round) {
        CHECK(outcome_of(sample.server.put(two)) == "409 fenced");
        CHECK(outcome_of(sample.server.put(three)) == "409 fenced");
        CHECK(outcome_of(sample.server.put(one)) == "409 fenced");
        CHECK(sample.server.objects() == 1);
        REQUIRE(sample.server.open());
    }
    CHECK(sample.session(newer).epoch == 2);
    test::StreamBuilder next(sample.machine, sample.disk, kDisk, 2);
    next.new_epoch(2, grant.head, grant.head_segment);
    CHECK(sample.server.put(next.activation().segment()).status == 200);
}

TEST_CASE("a byte flipped anywhere in an upload is refused and nothing is stored") {
    Sample sample;
    auto segment = sample.stream.write(0, 512, 1).zeroes(4096, 4096).tag("t").segment();
    REQUIRE(segment.bytes.size() < 2000);
    for (size_t at = 0; at < segment.bytes.size(); ++at) {
        Bytes damaged = segment.bytes;
        damaged[at] ^= std::byte{1};
        CAPTURE(at);
        // The digest in the request is of the damaged bytes: only the segment itself can tell.
        CHECK(outcome_of(sample.server.put(segment.header, damaged)) == "400 corrupt");
    }
    for (size_t length = 0; length < segment.bytes.size(); ++length) {
        CAPTURE(length);
        CHECK(outcome_of(sample.server.put(
                  segment.header, ByteView(segment.bytes).first(length))) == "400 corrupt");
    }
    CHECK(sample.server.objects() == 0);
    CHECK((*sample.server.catalog().disk(sample.disk))->head == 0);
    CHECK(outcome_of(sample.server.put(segment)) == sample.stored());
}

TEST_CASE("an upload that is not what the request says is refused") {
    Sample sample;
    const auto segment = sample.next(1);
    const auto put_as = [&](auto change) {
        auto head = sample.server.machine_head(sample.machine, "PUT",
                                               sample.server.disk_path(sample.disk, "segments/1"));
        head.headers[wire::kHeaderEpoch] = "1";
        head.headers[wire::kHeaderDigest] = to_hex(xxh3_128(segment.bytes).bytes);
        change(head);
        return outcome_of(sample.server.send(head, segment.bytes));
    };
    using Head = wire::RequestHead;
    CHECK(put_as([](Head& h) { h.headers[wire::kHeaderDigest] = std::string(32, '0'); }) ==
          "400 corrupt");
    CHECK(put_as([](Head& h) { h.headers.erase(wire::kHeaderDigest); }) == "400 corrupt");
    CHECK(put_as([](Head& h) { h.headers.erase(wire::kHeaderEpoch); }) == "400 bad_request");
    CHECK(put_as([](Head& h) { h.headers[wire::kHeaderEpoch] = "x"; }) == "400 bad_request");
    CHECK(put_as([](Head& h) { h.headers[wire::kHeaderEpoch] = "2"; }) == "409 fenced");
    CHECK(put_as([](Head& h) { h.headers[wire::kHeaderEpoch] = "0"; }) == "409 fenced");
    CHECK(put_as([](Head& h) { h.path.back() = '2'; }) == "400 corrupt");
    CHECK(put_as([](Head& h) { h.path.back() = '0'; }) == "400 bad_request");
    CHECK(put_as([](Head& h) { h.path += "x"; }) == "400 bad_request");
    CHECK(put_as([](Head& h) { h.path += "/x"; }) == "404 not_found");
    CHECK(put_as([](Head& h) { h.method = "DELETE"; }) == "405 bad_request");
    CHECK(sample.server.objects() == 0);
    // Another machine's segment under this machine's name and disk.
    test::StreamBuilder foreign(Uuid::random(), sample.disk, kDisk);
    const auto theirs = foreign.activation().segment();
    auto header = theirs.header;
    header.machine = sample.machine;
    CHECK(outcome_of(sample.server.put(header, theirs.bytes)) == "400 corrupt");
}

TEST_CASE("another machine's disk is refused on every route") {
    Sample sample;
    REQUIRE(sample.server.put(sample.next(1)).status == 200);
    const Uuid stranger = Uuid::random();
    CHECK(outcome_of(sample.server.ask_session(stranger, sample.disk, Uuid::random(), kDisk)) ==
          "403 forbidden");
    auto segment = sample.next(2);
    segment.header.machine = stranger;
    CHECK(outcome_of(sample.server.put(segment)) == "403 forbidden");
    CHECK(outcome_of(sample.server.send(
              sample.server.machine_head(stranger, "GET",
                                         sample.server.disk_path(sample.disk, "digests")),
              {})) == "403 forbidden");
    CHECK((*sample.server.catalog().disk(sample.disk))->epoch == 1);
    const Uuid unknown = Uuid::random();
    segment.header.disk = unknown;
    CHECK(outcome_of(sample.server.put(segment)) == "404 not_found");
}

TEST_CASE("operators only read, machines only write their own, servers nothing") {
    Sample sample;
    const auto path = [&](const char* rest) { return sample.server.disk_path(sample.disk, rest); };
    struct Row {
        const char* method;
        std::string path;
        bool machine;
    };
    for (const Row& row :
         {Row{"POST", path("session"), true}, Row{"PUT", path("segments/1"), true},
          Row{"GET", path("digests"), true}, Row{"GET", "/v1/disks", false},
          Row{"GET", path("points"), false}, Row{"GET", path("segments"), false},
          Row{"GET", path("segments/1"), false}, Row{"GET", "/v1/status", false}}) {
        for (const wire::Role role :
             {wire::Role::machine, wire::Role::operator_, wire::Role::server}) {
            CAPTURE(row.method, row.path, int(role));
            auto head = sample.server.machine_head(sample.machine, row.method, row.path);
            head.peer.role = role;
            const bool may = role == (row.machine ? wire::Role::machine : wire::Role::operator_);
            CHECK((outcome_of(sample.server.send(head, {})) == "403 forbidden") == !may);
            // Not by going round admit() either.
            CHECK((outcome_of(sample.server.service->handle(head, {})) == "403 forbidden") == !may);
        }
    }
}

TEST_CASE("a session request is checked, and a machine cannot register disks without end") {
    Sample sample;
    const auto ask = [&](uint64_t bytes, const Uuid& session) {
        return outcome_of(
            sample.server.ask_session(sample.machine, Uuid::random(), session, bytes));
    };
    CHECK(ask(0, Uuid::random()) == "400 bad_request");
    CHECK(ask(1000, Uuid::random()) == "400 bad_request");
    CHECK(ask(HERALD_DISK_BYTES_MAX + 512, Uuid::random()) == "400 bad_request");
    CHECK(ask(kDisk, Uuid{}) == "400 bad_request");
    auto head = sample.server.machine_head(sample.machine, "POST",
                                           sample.server.disk_path(sample.disk, "session"));
    CHECK(outcome_of(sample.server.send(head, as_bytes("{"))) == "400 bad_request");
    for (unsigned i = 1; i < HERALD_DISKS_MAX; ++i) REQUIRE(ask(kDisk, Uuid::random()) == "200");
    CHECK(ask(kDisk, Uuid::random()) == "403 forbidden");
    CHECK(outcome_of(sample.server.ask_session(Uuid::random(), Uuid::random(), Uuid::random(),
                                               kDisk)) == "200");
}

TEST_CASE("a record that leaves the disk is refused, or no later point could be restored") {
    Sample sample;
    test::StreamBuilder larger(sample.machine, sample.disk, 2 * kDisk);
    larger.activation().resize(kDisk);
    // The builder's own image is shorter now: made by hand.
    auto segment = larger.segment();
    hrl::SegmentHeader header = segment.header;
    header.segment = Uuid::random();
    header.disk_bytes = kDisk;
    hrl::SegmentWriter writer(header);
    hrl::Record record;
    record.kind = hrl::RecordKind::zeroes;
    record.position = 1;
    record.offset = kDisk - 512;
    record.length = 1024;
    REQUIRE(writer.append(record));
    auto finished = std::move(writer).finish();
    REQUIRE(finished);
    CHECK(outcome_of(sample.server.put(*finished)) == "400 corrupt");
    CHECK(sample.server.objects() == 0);
}

TEST_CASE("an operator sees disks, points and segments, and restores from what is stored") {
    Sample sample;
    sample.stream.scan_begin().write(0, 65536, 5).tag("too early").scan_end().tag("a point");
    const uint64_t position = sample.stream.position();
    const Bytes image = sample.stream.image();
    const auto one = sample.stream.segment();
    REQUIRE(sample.server.put(one).status == 200);
    REQUIRE(sample.server.put(sample.next(9)).status == 200);

    const auto get = [&](const std::string& path) {
        return sample.server.send(sample.server.operator_head(path), {});
    };
    auto disks = wire::decode_disks(test::body_of(get("/v1/disks")));
    REQUIRE(disks);
    REQUIRE(disks->size() == 1);
    CHECK((*disks)[0].head == sample.stream.position());
    CHECK((*disks)[0].points == 1);
    CHECK((*disks)[0].state == "protected");
    auto points =
        wire::decode_points(test::body_of(get(sample.server.disk_path(sample.disk, "points"))));
    REQUIRE(points);
    REQUIRE(points->size() == 1);
    CHECK((*points)[0].name == "a point");
    CHECK((*points)[0].position == position);
    CHECK((*points)[0].id == sample.stream.last_tag().id);
    CHECK((*points)[0].sent_bytes == one.bytes.size());
    auto refused = sample.server.catalog().refused_tags(sample.disk, 10);
    REQUIRE(refused->size() == 1);
    CHECK(refused->front().name == "too early");
    CHECK_FALSE(refused->front().refusal.empty());
    // Listed only when asked for, in its place.
    auto all = sample.server.operator_head(sample.server.disk_path(sample.disk, "points"));
    all.query["refused"] = "10";
    points = wire::decode_points(test::body_of(sample.server.send(all, {})));
    REQUIRE(points);
    REQUIRE(points->size() == 2);
    CHECK((*points)[0].name == "too early");
    CHECK((*points)[0].refusal == refused->front().refusal);
    CHECK((*points)[1].refusal.empty());
    auto segments =
        wire::decode_segments(test::body_of(get(sample.server.disk_path(sample.disk, "segments"))));
    REQUIRE(segments);
    CHECK(segments->size() == 2);
    auto head = sample.server.operator_head(sample.server.disk_path(sample.disk, "segments"));
    head.query = {{"after", std::to_string(one.last_position)}, {"limit", "1"}};
    segments = wire::decode_segments(test::body_of(sample.server.send(head, {})));
    REQUIRE(segments);
    REQUIRE(segments->size() == 1);
    CHECK((*segments)[0].first_position == one.last_position + 1);
    head.query["limit"] = "x";
    CHECK(outcome_of(sample.server.send(head, {})) == "400 bad_request");

    auto download = get(sample.server.disk_path(sample.disk, "segments/1"));
    REQUIRE(download.status == 200);
    REQUIRE(download.file);
    Bytes bytes(download.file->length);
    REQUIRE(read_exact(download.file->fd.get(), download.file->offset, bytes, "download"));
    CHECK(bytes == one.bytes);
    CHECK(outcome_of(get(sample.server.disk_path(sample.disk, "segments/2"))) == "404 not_found");
    CHECK(outcome_of(get(sample.server.disk_path(Uuid::random(), "points"))) == "404 not_found");
    CHECK(outcome_of(get("/v1/disks/zebra/points")) == "400 bad_request");
    CHECK(outcome_of(get("/")) == "404 not_found");
    auto status = wire::decode_server_status(test::body_of(get("/v1/status")));
    REQUIRE(status);
    CHECK(status->disks == 1);
    CHECK(status->total_bytes > 0);

    auto target = vault::open_restore_target(sample.dir.path() / "image", kDisk, false);
    REQUIRE(target);
    auto provider = vault::local_provider(sample.server.catalog(), sample.server.store());
    auto restored =
        vault::restore(*provider, {sample.disk, position, kDisk, target->fd.get(), "image"});
    if (!restored) FAIL(restored.error().message);
    CHECK(*read_file(sample.dir.path() / "image", kDisk) == image);
}

TEST_CASE("a machine gets the digests of what it sent") {
    Sample sample;
    sample.stream.scan_begin().write(HERALD_BLOCK_BYTES, HERALD_BLOCK_BYTES, 7).scan_end();
    CHECK_FALSE(sample.session(Uuid::random()).digests);
    // That was a newer session: what follows belongs to it.
    test::StreamBuilder stream(sample.machine, sample.disk, kDisk, 2);
    stream.activation().write(HERALD_BLOCK_BYTES, HERALD_BLOCK_BYTES, 7).zeroes(0, 512);
    REQUIRE(sample.server.put(stream.segment()).status == 200);
    auto head = sample.server.machine_head(sample.machine, "GET",
                                           sample.server.disk_path(sample.disk, "digests"));
    head.query = {{"first", "0"}, {"count", "3"}};
    auto response = sample.server.send(head, {});
    REQUIRE(response.status == 200);
    REQUIRE(response.body.size() == 3 * 16);
    CHECK(all_zero(ByteView(response.body).first(16)));
    const Digest128 expected = xxh3_128(Bytes(HERALD_BLOCK_BYTES, std::byte{7}));
    CHECK(std::equal(expected.bytes.begin(), expected.bytes.end(), response.body.begin() + 16));
    CHECK(all_zero(ByteView(response.body).subspan(32)));
    head.query["count"] = "65537";
    CHECK(outcome_of(sample.server.send(head, {})) == "400 bad_request");
    CHECK(sample.session(Uuid::random()).digests);
}

TEST_CASE("a catalog that is not the store's is refused and nothing is removed") {
    Sample sample;
    REQUIRE(sample.server.put(sample.next(1)).status == 200);
    sample.server.close();
    for (const char* suffix : {"", "-wal", "-shm"}) {
        std::filesystem::remove(sample.dir.path() / (std::string("catalog.sqlite") + suffix));
    }
    auto opened = sample.server.open();
    REQUIRE_FALSE(opened);
    CHECK(opened.error().message.find("catalog") != std::string::npos);
    auto store = store::open_directory_store(sample.dir.path() / "store");
    REQUIRE(store);
    size_t objects = 0;
    REQUIRE((*store)->list("", [&](const store::ObjectInfo&) -> Result<void> {
        ++objects;
        return {};
    }));
    CHECK(objects == 1);
}

TEST_CASE("an object that a crash left with other bytes does not stand in for the segment") {
    Sample sample;
    const auto segment = sample.next(1);
    const auto name = process_server::object_name(sample.disk, 1, 1, segment.header.segment);
    REQUIRE(sample.server.store().put(name, as_bytes("something else")));
    CHECK(outcome_of(sample.server.put(segment)) == sample.stored());
    CHECK(*sample.server.store().get(name, 0, segment.bytes.size()) == segment.bytes);
}

TEST_CASE("object names are read back, and nothing else is taken for one") {
    const Uuid disk = Uuid::random();
    const auto name = process_server::object_name(disk, 3, 70000, Uuid::random());
    auto place = process_server::parse_object_name(name);
    REQUIRE(place);
    CHECK(place->disk == disk);
    CHECK(place->epoch == 3);
    CHECK(place->first == 70000);
    for (size_t at = 0; at < name.size(); ++at) {
        std::string changed = name;
        changed[at] = 'X';
        CHECK_FALSE(process_server::parse_object_name(changed));
        CHECK_FALSE(process_server::parse_object_name(name.substr(0, at)));
    }
}

TEST_CASE("many disks at once, each over several connections, all end up whole") {
    Sample sample;
    constexpr int kDisks = 4;
    constexpr int kSegments = 30;
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    std::vector<Uuid> disks;
    std::vector<std::shared_ptr<std::vector<hrl::Segment>>> all;
    for (int d = 0; d < kDisks; ++d) {
        const Uuid disk = Uuid::random();
        disks.push_back(disk);
        REQUIRE(sample.server.ask_session(sample.machine, disk, Uuid::random(), kDisk).status ==
                200);
        test::StreamBuilder stream(sample.machine, disk, kDisk);
        stream.activation();
        auto segments = std::make_shared<std::vector<hrl::Segment>>();
        for (int i = 0; i < kSegments; ++i) {
            segments->push_back(stream.write(4096, 4096, uint8_t(i)).segment());
        }
        all.push_back(segments);
        auto next = std::make_shared<std::atomic<int>>(0);
        for (int connection = 0; connection < 2; ++connection) {
            threads.emplace_back([&, segments, next] {
                for (int i; (i = (*next)++) < kSegments;) {
                    // Sent twice, as after a lost answer; and again while the window is full.
                    for (int times = 0; times < 2;) {
                        const auto outcome = outcome_of(sample.server.put((*segments)[size_t(i)]));
                        if (outcome.rfind("stored", 0) == 0) {
                            ++times;
                        } else if (outcome != "409 ahead") {
                            ++failures;
                            return;
                        }
                    }
                }
            });
        }
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(failures == 0);
    for (int d = 0; d < kDisks; ++d) {
        auto row = sample.server.catalog().disk(disks[size_t(d)]);
        CHECK((*row)->head == all[size_t(d)]->back().last_position);
        CHECK((*row)->segments == kSegments);
    }
    CHECK(sample.server.objects() == size_t(kDisks * kSegments));
}
