// SPDX-License-Identifier: Apache-2.0
// acked_is_kept and fenced, with the server killed at every named durable step: a child process
// runs the service, writes each acknowledgement down outside of it and is killed; the parent opens
// what is left and compares. Process death only: what a power cut leaves is another test's.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/service_fixture.h"
#include "user/base/crash_point.h"
#include "user/vault/restore.h"
#include "user/vault/restore_target.h"

using namespace herald;
using test::outcome_of;

namespace {

constexpr uint64_t kDisk = 4 * HERALD_BLOCK_BYTES;

struct Plan {
    Uuid machine = Uuid::random();
    Uuid disk = Uuid::random();
    Uuid session = Uuid::random();
    std::vector<hrl::Segment> segments;
    std::vector<Bytes> images;  // after each segment
    // The order of sending: out of order within the window, as parallel uploads are.
    std::vector<size_t> order{1, 0, 2, 4, 3, 5};

    Plan() {
        test::StreamBuilder stream(machine, disk, kDisk);
        stream.activation();
        for (uint8_t i = 0; i < 6; ++i) {
            stream.scan_begin(i).write(i % 4 * HERALD_BLOCK_BYTES, HERALD_BLOCK_BYTES,
                                       uint8_t(i + 1));
            stream.scan_end(i).tag("point");
            segments.push_back(stream.segment());
            images.push_back(stream.image());
        }
    }
};

// In the child: serves the plan until killed; each acknowledgement goes to `acks` at once.
[[noreturn]] void serve(const Plan& plan, const std::filesystem::path& root, int acks,
                        const std::string& crash_at) {
    test::ServiceFixture server(root);
    if (!server.open()) ::_exit(1);
    if (server.ask_session(plan.machine, plan.disk, plan.session, kDisk).status != 200) ::_exit(2);
    arm_crash_point(crash_at);
    for (const size_t i : plan.order) {
        auto response = server.put(plan.segments[i]);
        auto ack = wire::decode_segment_ack(as_text(response.body));
        if (response.status != 200 || !ack) ::_exit(3);
        if (::write(acks, &ack->stored, sizeof ack->stored) != sizeof ack->stored) ::_exit(4);
    }
    ::_exit(0);
}

void check_after(const Plan& plan, const std::filesystem::path& root, uint64_t acked) {
    test::ServiceFixture server(root);
    auto opened = server.open();
    if (!opened) FAIL(opened.error().message);
    auto row = server.catalog().disk(plan.disk);
    REQUIRE(row);
    REQUIRE(*row);
    const uint64_t head = (*row)->head;
    CHECK(head >= acked);
    // Every object is a row's and every row has its object, whole.
    CHECK(server.objects() == (*row)->segments);
    auto rows = server.catalog().segments(plan.disk, 0, 100);
    REQUIRE(rows);
    CHECK(rows->size() == (*row)->segments);
    for (size_t i = 0; i < rows->size(); ++i) {
        auto bytes = server.store().get((*rows)[i].object, 0, (*rows)[i].bytes);
        REQUIRE(bytes);
        CHECK(*bytes == plan.segments[i].bytes);
    }
    if (!rows->empty()) {
        test::TempDir dir;
        auto target = vault::open_restore_target(dir.path() / "image", kDisk, false);
        REQUIRE(target);
        auto provider = vault::local_provider(server.catalog(), server.store());
        auto restored = vault::restore(*provider, {plan.disk, head, kDisk, target->fd.get(), "i"});
        if (!restored) FAIL(restored.error().message);
        CHECK(*read_file(dir.path() / "image", kDisk) == plan.images[rows->size() - 1]);
        CHECK(server.catalog().points(plan.disk)->size() == rows->size());
    }
    // The same session goes on where it was: it sends again what was not acknowledged. It need not
    // ask again, and once it has stored something it must not.
    CHECK(outcome_of(server.ask_session(plan.machine, plan.disk, plan.session, kDisk)) ==
          (head == 0 ? "200" : "409 fenced"));
    for (const size_t i : plan.order) {
        CHECK(server.put(plan.segments[i]).status == 200);
    }
    CHECK((*server.catalog().disk(plan.disk))->head == plan.segments.back().last_position);
    CHECK(server.objects() == plan.segments.size());
    // A newer session fences it; the old one changes nothing any more.
    REQUIRE(server.ask_session(plan.machine, plan.disk, Uuid::random(), kDisk).status == 200);
    for (const auto& segment : plan.segments) {
        CHECK(outcome_of(server.put(segment)) == "409 fenced");
    }
    CHECK(outcome_of(server.ask_session(plan.machine, plan.disk, plan.session, kDisk)) ==
          "409 fenced");
    CHECK((*server.catalog().disk(plan.disk))->epoch == 2);
    CHECK(server.objects() == plan.segments.size());
}

}  // namespace

TEST_CASE("killed at any durable step, the server keeps all it acknowledged and nothing else") {
    int kills = 0;
    for (const char* step : {"service.verified", "store.temp_written", "store.temp_synced",
                             "store.linked", "store.put", "service.stored", "catalog.before_commit",
                             "catalog.after_commit", "service.committed"}) {
        for (int time = 1; time <= 7; ++time) {
            const std::string crash_at = fmt::format("{}:{}", step, time);
            CAPTURE(crash_at);
            const Plan plan;
            test::TempDir dir;
            int acks[2];
            REQUIRE(::pipe2(acks, O_CLOEXEC) == 0);
            const pid_t child = ::fork();
            if (child == 0) serve(plan, dir.path(), acks[1], crash_at);
            ::close(acks[1]);
            uint64_t acked = 0;
            for (uint64_t ack; ::read(acks[0], &ack, sizeof ack) == sizeof ack;) {
                acked = std::max(acked, ack);
            }
            ::close(acks[0]);
            int status = 0;
            REQUIRE(::waitpid(child, &status, 0) == child);
            const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            CHECK((killed || status == 0));
            kills += killed;
            check_after(plan, dir.path(), acked);
        }
    }
    CHECK(kills >= 9 * 6);
}
