// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/replicator/protected_machine.h"

#include <signal.h>
#include <sys/mount.h>

#include <fstream>
#include <thread>

#include "tests/catch.hpp"
#include "user/tracker/ebpf_tracker.h"

namespace herald::test {

using namespace std::chrono_literals;

std::string missing_for_protected_machine() {
    const std::string missing = missing_for_loop_disks();
    if (!missing.empty()) return missing;
    const auto tracker = tracker::check_ebpf_requirements();
    return tracker ? std::string() : tracker.error().message;
}

ProtectedMachine::ProtectedMachine(const std::string& disk_size, const std::string& settings,
                                   const std::filesystem::path& disk_dir) {
    std::filesystem::create_directories(site_.dir() / "run");
    disk_.emplace((disk_dir.empty() ? site_.dir() : disk_dir) / "disk.img", disk_size);
    std::ofstream(site_.site() / "machine/test.toml")
        << "[server]\nhost = \"127.0.0.1\"\nport = " << site_.port()
        << "\n[tls]\nauthority = \"ca.pem\"\ncertificate = \"machine.pem\"\nkey = \"machine.key\"\n"
        << "[machine]\nid = \"" << to_string(site_.machine()) << "\"\n"
        << "[replicator]\ncontrol_socket = " << run("r.sock")
        << "\nguardian_socket = " << run("g.sock") << "\nstate_dir = " << state_dir()
        << "\nbpf_dir = " << bpf_dir() << "\npass_interval_ms = 50\n"
        << settings << "\n[[disk]]\npath = \"" << disk_->device() << "\"\n";
    start_guardian();
}

ProtectedMachine::~ProtectedMachine() {
    if (replicator_ && replicator_->running()) {
        (void)try_ask({{"op", "unprotect"}, {"disk", disk_->device()}});
    }
    replicator_.reset();
    guardian_.reset();
    // The pins go with the bpffs.
    ::umount2(bpf_dir().c_str(), MNT_DETACH);
}

void ProtectedMachine::start_guardian() {
    guardian_ = Process::start({HERALD_BIN_DIR "/herald-guardian", "--socket", run("g.sock")},
                               site_.dir(), "guardian");
}

void ProtectedMachine::kill_guardian() {
    guardian_->signal(SIGKILL);
    REQUIRE(guardian_->wait(10s));
    guardian_.reset();
}

void ProtectedMachine::start(const std::string& crash_at) {
    if (!crash_at.empty()) ::setenv("HERALD_CRASH_AT", crash_at.c_str(), 1);
    replicator_ = Process::start({HERALD_BIN_DIR "/herald-replicator", "--config",
                                  (site_.site() / "machine/test.toml").native()},
                                 site_.dir(), fmt::format("replicator-{}", ++starts_));
    ::unsetenv("HERALD_CRASH_AT");
}

void ProtectedMachine::kill() {
    replicator_->signal(SIGKILL);
    REQUIRE(replicator_->wait(10s));
}

bool ProtectedMachine::died_within(std::chrono::milliseconds most) {
    return replicator_->wait(most).has_value();
}

Result<nlohmann::json> ProtectedMachine::try_ask(const nlohmann::json& request) {
    auto client = agent::ControlClient::connect(run("r.sock"));
    if (!client) return pass(client);
    return client->request(request, 20s);
}

nlohmann::json ProtectedMachine::ask(const nlohmann::json& request) {
    for (int i = 0;; ++i) {
        auto answer = try_ask(request);
        if (answer) return *answer;
        INFO(replicator_->err());
        INFO(answer.error().message);
        REQUIRE(replicator_->running());
        REQUIRE(i < 200);
        std::this_thread::sleep_for(50ms);
    }
}

nlohmann::json ProtectedMachine::wait_for(const nlohmann::json& request,
                                          const std::function<bool(const nlohmann::json&)>& so,
                                          std::chrono::seconds most) {
    nlohmann::json last;
    for (int64_t i = 0; i < most / 50ms; ++i) {
        last = ask(request);
        if (so(last)) return last;
        std::this_thread::sleep_for(50ms);
    }
    FAIL("never so: " + last.dump(2) + replicator_->err());
    return last;
}

nlohmann::json ProtectedMachine::status() {
    return ask({{"op", "status"}, {"disk", disk_->device()}});
}

void ProtectedMachine::wait_clean() {
    nlohmann::json last;
    for (int i = 0; i < 1200; ++i) {
        last = status();
        const auto blocks = [&](const char* name) { return last[name].get<uint64_t>(); };
        if (last["state"] == "protected" && blocks("todo_blocks") + blocks("live_blocks") +
                                                    blocks("in_flight_blocks") +
                                                    blocks("unsent_bytes") ==
                                                0) {
            return;
        }
        std::this_thread::sleep_for(50ms);
    }
    FAIL("not clean: " + last.dump(2) + replicator_->err());
}

Result<nlohmann::json> ProtectedMachine::tag(const std::string& name,
                                             const std::function<void()>& frozen) {
    auto client = agent::ControlClient::connect(run("r.sock"));
    if (!client) return pass(client);
    auto sent = client->send(
        {{"op", "tag"}, {"disk", disk_->device()}, {"name", name}, {"hold", bool(frozen)}});
    if (!sent) return pass(sent);
    for (;;) {
        auto message = client->next(60s);
        if (!message) return message;
        auto error = agent::error_of(*message);
        if (!error) return pass(error);
        if (message->contains("point")) return (*message)["point"];
        if (message->contains("frozen")) {
            frozen();
            sent = client->send({{"op", "thaw"}});
            if (!sent) return pass(sent);
        }
    }
}

std::string ProtectedMachine::sha256_of_disk() {
    return sh("dd if=" + disk_->device() + " iflag=direct bs=1M status=none | sha256sum")
        .substr(0, 64);
}

void ProtectedMachine::wait_protected() {
    for (int i = 0; i < 1200; ++i) {
        if (status()["state"] == "protected") return;
        std::this_thread::sleep_for(50ms);
    }
    FAIL("not protected: " + status().dump(2) + replicator_->err());
}

std::filesystem::path ProtectedMachine::restore(const std::string& point) {
    const auto image = site_.dir() / "restored.img";
    std::filesystem::remove(image);
    const std::string disk = status()["disk"].get<std::string>();
    const Finished done = site_.herald({"restore", disk, "--point", point, "--to", image.native()});
    INFO(done.err);
    REQUIRE(done.status == 0);
    return image;
}

std::string ProtectedMachine::sha256_of_point(const std::string& point) {
    return sh("sha256sum " + restore(point).native()).substr(0, 64);
}

}  // namespace herald::test
