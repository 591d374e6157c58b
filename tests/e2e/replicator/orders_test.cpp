// SPDX-License-Identifier: Apache-2.0
// An operator's order that was answered is carried out, whatever happens to the daemon after that.
#include <signal.h>

#include <iostream>

#include "tests/catch.hpp"
#include "tests/e2e/replicator/protected_machine.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kRandomBytes = 4u << 20;

class Ordering {
  public:
    Ordering() : machine("16M") {
        sh("dd if=/dev/urandom of=" + machine.disk().device() +
           " bs=1M count=4 oflag=direct status=none");
        machine.start();
        machine.wait_clean();
    }
    void order(const char* how) {
        machine.ask({{"op", "resync"}, {"disk", machine.disk().device()}, {"how", how}});
        machine.kill();
    }
    // In a new process, which counts what it sends from nothing.
    void carried_out(const std::string& how) {
        INFO(how);
        machine.start();
        machine.wait_for({{"op", "status"}, {"disk", machine.disk().device()}},
                         [&](const nlohmann::json& status) {
                             return how == "full" ? status["raw_bytes"] >= kRandomBytes
                                                  : status["gap"] != "";
                         });
        machine.wait_clean();
        if (how == "digest") CHECK(machine.status()["raw_bytes"] < 65536);
        machine.kill();
        // And once: a later start knows nothing of it.
        machine.start();
        machine.wait_clean();
        CHECK(machine.status()["gap"] == "");
        CHECK(machine.status()["raw_bytes"] < 65536);
    }
    ProtectedMachine machine;
};

}  // namespace

TEST_CASE("a resync that was answered is carried out although the replicator is killed at once") {
    if (const std::string why = missing_for_protected_machine(); !why.empty()) {
        std::cout << "SKIPPED: " << why << "\n";
        return;
    }
    Ordering test;
    for (const char* how : {"full", "digest"}) {
        test.order(how);
        test.carried_out(how);
        // While no session is granted, as after one that was superseded.
        test.machine.site().server().signal(SIGSTOP);
        test.machine.kill();
        test.machine.start();
        test.order(how);
        test.machine.site().server().signal(SIGCONT);
        test.carried_out(how);
    }
    // What covers more stands, and what is marked dirty takes nothing back.
    test.machine.site().server().signal(SIGSTOP);
    test.machine.kill();
    test.machine.start();
    for (const char* how : {"full", "digest", "dirty"}) {
        test.machine.ask({{"op", "resync"}, {"disk", test.machine.disk().device()}, {"how", how}});
    }
    test.machine.kill();
    test.machine.site().server().signal(SIGCONT);
    test.carried_out("full");
}
