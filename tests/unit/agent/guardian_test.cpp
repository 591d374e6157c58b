// SPDX-License-Identifier: Apache-2.0
// The guardian's protocol, with descriptors of ordinary files: FITHAW on them fails and harms
// nobody.
#include "user/agent/guardian.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <thread>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/agent/freeze.h"
#include "user/agent/guardian_wire.h"
#include "user/agent/unix_socket.h"

using namespace herald;
using namespace herald::agent;
using namespace std::chrono_literals;

namespace {

struct Running {
    explicit Running(const std::filesystem::path& socket) {
        auto listening = Guardian::listen(socket, [this](const std::string& line) {
            std::lock_guard<std::mutex> guard(lock);
            reports.push_back(line);
        });
        REQUIRE(listening);
        guardian = std::move(*listening);
        thread = std::thread([this] { guardian->run(); });
    }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() {
        guardian->stop();
        thread.join();
    }
    size_t report_count() {
        std::lock_guard<std::mutex> guard(lock);
        return reports.size();
    }
    std::mutex lock;
    std::vector<std::string> reports;
    std::unique_ptr<Guardian> guardian;
    std::thread thread;
};

GuardianReply_wire ask(int socket, GuardianRequest_wire request, int fd = -1,
                       size_t bytes = sizeof(GuardianRequest_wire)) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    iovec data{&request, bytes};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    REQUIRE(::sendmsg(socket, &message, MSG_NOSIGNAL) == ssize_t(bytes));
    GuardianReply_wire reply{};
    REQUIRE(::recv(socket, &reply, sizeof reply, 0) == sizeof reply);
    CHECK(reply.magic == kGuardianMagic);
    return reply;
}

GuardianRequest_wire request(GuardianOp op, uint32_t deadline_ms = 0, uint32_t count = 0) {
    return {kGuardianMagic, kGuardianVersion, uint16_t(op), deadline_ms, count};
}

}  // namespace

TEST_CASE("the guardian answers a probe, and its socket is for root alone") {
    test::TempDir dir;
    const auto path = dir.path() / "g.sock";
    CHECK_FALSE(Freezer(path).probe());
    {
        Running running(path);
        CHECK(Freezer(path).probe());
        struct stat st {};
        REQUIRE(::stat(path.c_str(), &st) == 0);
        CHECK((st.st_mode & 0777) == 0600);
        // A second one on the same path is refused; the first still answers.
        CHECK_FALSE(Guardian::listen(path, [](const std::string&) {}));
        CHECK(Freezer(path).probe());
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("the guardian refuses what it does not understand, and stays") {
    test::TempDir dir;
    Running running(dir.path() / "g.sock");
    auto file = open_file(dir.path() / "f", O_RDWR | O_CREAT);
    REQUIRE(file);
    auto socket = connect_unix(dir.path() / "g.sock", SOCK_SEQPACKET);
    REQUIRE(socket);
    const int s = socket->get();
    CHECK(ask(s, request(GuardianOp::disarm)).error == EINVAL);
    CHECK(ask(s, request(GuardianOp::arm, 1000, 0)).error == EINVAL);               // no descriptor
    CHECK(ask(s, request(GuardianOp::arm, 1000, 2), file->get()).error == EINVAL);  // wrong count
    CHECK(ask(s, request(GuardianOp::arm, 0, 1), file->get()).error == EINVAL);     // no deadline
    CHECK(ask(s, request(GuardianOp::arm, 3600000, 1), file->get()).error == EINVAL);
    CHECK(ask(s, request(GuardianOp(77))).error == EINVAL);
    auto foreign = request(GuardianOp::probe);
    foreign.version = 9;
    CHECK(ask(s, foreign).error == EPROTO);
    CHECK(ask(s, request(GuardianOp::probe), -1, 7).error == EPROTO);
    CHECK(ask(s, request(GuardianOp::probe)).error == 0);
    CHECK(running.report_count() == 0);
}

TEST_CASE("a disarm before the deadline is clean, one after it says that the guardian fired") {
    test::TempDir dir;
    Running running(dir.path() / "g.sock");
    auto file = open_file(dir.path() / "f", O_RDWR | O_CREAT);
    auto socket = connect_unix(dir.path() / "g.sock", SOCK_SEQPACKET);
    REQUIRE(socket);
    const int s = socket->get();
    CHECK(ask(s, request(GuardianOp::arm, 5000, 1), file->get()).error == 0);
    CHECK(ask(s, request(GuardianOp::arm, 5000, 1), file->get()).error == EINVAL);  // one at a time
    auto reply = ask(s, request(GuardianOp::disarm));
    CHECK(reply.error == 0);
    CHECK(reply.fired == 0);
    CHECK(running.report_count() == 0);

    CHECK(ask(s, request(GuardianOp::arm, 50, 1), file->get()).error == 0);
    std::this_thread::sleep_for(120ms);
    reply = ask(s, request(GuardianOp::disarm));
    CHECK(reply.error == 0);
    CHECK(reply.fired == 1);
}

TEST_CASE("a connection that closes while armed is thawed and reported") {
    test::TempDir dir;
    Running running(dir.path() / "g.sock");
    auto file = open_file(dir.path() / "f", O_RDWR | O_CREAT);
    {
        auto socket = connect_unix(dir.path() / "g.sock", SOCK_SEQPACKET);
        REQUIRE(socket);
        CHECK(ask(socket->get(), request(GuardianOp::arm, 60000, 1), file->get()).error == 0);
    }
    for (int i = 0; i < 200 && running.report_count() == 0; ++i) std::this_thread::sleep_for(5ms);
    CHECK(running.report_count() == 1);
}
