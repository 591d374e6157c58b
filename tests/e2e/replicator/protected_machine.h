// SPDX-License-Identifier: Apache-2.0
// ProtectedMachine: a site with its process server, a guardian and a replicator, all real, with
// sockets, state and pins of their own, and one loop disk.
// Callers: one test. Owns: the processes and the disk; the pins are removed at the end.
// Failure: a failed REQUIRE with the replicator's own words.
#pragma once

#include <functional>
#include <iostream>

#include "tests/e2e/loop_disk.h"
#include "tests/e2e/support/test_site.h"
#include "user/agent/control.h"

namespace herald::test {

// Why such a machine cannot be had here, or nothing.
std::string missing_for_protected_machine();

// Ends a test, loudly, where there is none.
#define NEEDS_PROTECTED_MACHINE()                                                \
    if (const std::string why = missing_for_protected_machine(); !why.empty()) { \
        std::cout << "SKIPPED: " << why << "\n";                                 \
        return;                                                                  \
    }

class ProtectedMachine {
  public:
    // disk_dir: where the disk's file lies; beside everything else when empty.
    ProtectedMachine(const std::string& disk_size, const std::string& settings = "",
                     const std::filesystem::path& disk_dir = {});
    ~ProtectedMachine();

    LoopDisk& disk() { return *disk_; }
    TestSite& site() { return site_; }
    Process& replicator() { return *replicator_; }

    // crash_at: HERALD_CRASH_AT of the process, or empty. Does not wait.
    void start(const std::string& crash_at = "");
    // SIGKILL, or its end by itself.
    void kill();
    // Where programs are pinned, and where the replicator remembers things.
    std::filesystem::path bpf_dir() const { return site_.dir() / "bpf"; }
    std::filesystem::path state_dir() const { return site_.dir() / "rstate"; }
    bool died_within(std::chrono::milliseconds most);
    void start_guardian();
    void kill_guardian();

    nlohmann::json ask(const nlohmann::json& request);
    // Asks until the answer is so.
    nlohmann::json wait_for(const nlohmann::json& request,
                            const std::function<bool(const nlohmann::json&)>& so,
                            std::chrono::seconds most = std::chrono::seconds(60));
    // Errors are values here: a dead replicator is what some tests want.
    Result<nlohmann::json> try_ask(const nlohmann::json& request);
    nlohmann::json status();
    // Until the disk is synchronised and nothing is dirty or unsent.
    void wait_clean();
    // A point; `frozen` is called while the filesystems are frozen. The final message.
    Result<nlohmann::json> tag(const std::string& name, const std::function<void()>& frozen = {});
    // Until the server has the whole disk, whatever is written meanwhile.
    void wait_protected();
    // SHA-256 of the disk, read with O_DIRECT by a program that is not ours.
    std::string sha256_of_disk();
    // The disk as it was at this point, by `herald restore`; replaced by the next call.
    std::filesystem::path restore(const std::string& point);
    // SHA-256 of the disk as it was at this point, as restored by `herald restore`.
    std::string sha256_of_point(const std::string& point);

  private:
    std::filesystem::path run(const char* name) const { return site_.dir() / "run" / name; }
    TestSite site_;
    std::optional<LoopDisk> disk_;
    std::optional<Process> guardian_;
    std::optional<Process> replicator_;
    unsigned starts_ = 0;
};

}  // namespace herald::test
