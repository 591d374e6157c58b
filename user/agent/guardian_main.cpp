// SPDX-License-Identifier: Apache-2.0
// herald-guardian: the process that thaws filesystems whatever happens to the replicator.
// Its memory is locked, so that it never waits for a page from a frozen disk; it writes no file,
// and to its standard error only when nothing it guards is frozen any more.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include "user/agent/freeze.h"
#include "user/agent/guardian.h"
#include "user/base/usage.h"

namespace {

herald::agent::Guardian* running = nullptr;

void on_signal(int) {
    if (running) running->stop();
}

// Stacks are locked in memory: small ones, or 64 threads would hold 512 MiB.
#ifdef __SANITIZE_THREAD__
constexpr size_t kThreadStackBytes = 1u << 20;  // its thread-local data lies in the stack, too
#else
constexpr size_t kThreadStackBytes = 128u << 10;
#endif

}  // namespace

int main(int argc, char** argv) {
    CLI::App app(
        "Thaws filesystems that a replicator froze, if the replicator dies, hangs or\n"
        "overruns its deadline. Runs as a service of its own; needs root.",
        "herald-guardian");
    app.set_version_flag("--version", "herald-guardian " HERALD_VERSION);
    std::string socket = herald::agent::kGuardianSocketDefault;
    app.add_option("--socket", socket, "Unix socket to listen on (made with mode 0600)")
        ->capture_default_str();
    app.footer(
        "Exit status: 0 stopped by a signal, 1 could not start, 2 wrong usage.\n\n"
        "Example:\n  herald-guardian --socket /run/herald/guardian.sock");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return herald::usage_error(app, error, 2);
    }

    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGHUP, SIG_IGN);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, kThreadStackBytes);
    pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
    if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
        std::fprintf(stderr, "herald-guardian: cannot lock its memory (needs CAP_IPC_LOCK): %m\n");
        return 1;
    }
    if (std::FILE* score = std::fopen("/proc/self/oom_score_adj", "w")) {
        std::fputs("-1000", score);
        std::fclose(score);
    }
    // Whichever of the daemons is first makes the directory; if it cannot, bind says so.
    ::mkdir(std::filesystem::path(socket).parent_path().c_str(), 0700);
    auto guardian = herald::agent::Guardian::listen(socket, [](const std::string& line) {
        std::fprintf(stderr, "herald-guardian: %s\n", line.c_str());
    });
    if (!guardian) {
        std::fprintf(stderr, "herald-guardian: %s\n", guardian.error().message.c_str());
        return 1;
    }
    running = guardian->get();
    std::signal(SIGTERM, on_signal);
    std::signal(SIGINT, on_signal);
    sd_notify(0, "READY=1");
    (*guardian)->run();
    sd_notify(0, "STOPPING=1");
    running = nullptr;
    return 0;
}
