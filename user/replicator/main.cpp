// SPDX-License-Identifier: Apache-2.0
// herald-replicator: protects this machine's disks. Man page: herald-replicator(8).
#include <malloc.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "user/base/usage.h"
#include "user/replicator/service.h"
#include "user/tracker/ebpf_tracker.h"

using namespace herald;
using namespace herald::replicator;

namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  herald-replicator --config /etc/herald/replicator.toml --check-config\n"
    "  herald-replicator --config /etc/herald/replicator.toml\n"
    "  cbtctl protect /dev/sdb && cbtctl list\n"
    "\n"
    "Stopping (SIGTERM) or killing it does not stop the tracking of writes: what was written\n"
    "meanwhile is sent after the next start.";

constexpr time_t kStatusSeconds = 5;
// With what Service::stop() takes below TimeoutStopSec of the unit.
constexpr std::chrono::seconds kConnectionsMax{3};
constexpr std::chrono::seconds kStateMax{2};

int complain(const Error& error) {
    std::fprintf(stderr, "herald-replicator: %s\n", error.message.c_str());
    return 1;
}

Result<void> check_host(const Config& config) {
    if (::geteuid() != 0) {
        return fail(ErrorKind::operator_needed, "must run as root: it reads disks and loads BPF");
    }
    auto tracker = tracker::check_ebpf_requirements();
    if (!tracker) return tracker;
    std::error_code error;
    std::filesystem::create_directories(config.control_socket.parent_path(), error);
    return {};
}

int run(const Config& config, std::shared_ptr<const wire::TlsContext> tls) {
    // Blocked before any thread starts, so that every thread inherits it and sigtimedwait gets
    // them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    std::signal(SIGPIPE, SIG_IGN);

    auto ready = check_host(config);
    if (!ready) return complain(ready.error());
    auto state = StateDir::open(config.state_dir);
    if (!state) return complain(state.error());

    auto gate = std::make_shared<agent::LogGate>(std::make_shared<spdlog::sinks::stderr_sink_mt>());
    auto logger = std::make_shared<spdlog::logger>("herald-replicator", gate);
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(logger);

    Host host{config, std::move(tls), agent::Freezer(config.guardian_socket), gate,
              std::move(*state)};
    Service service(host);
    auto control = agent::ControlServer::start(
        config.control_socket,
        [&](const nlohmann::json& request, agent::ControlConnection& connection) {
            service.handle(request, connection);
        });
    if (!control) return complain(control.error());
    service.start();
    spdlog::info("herald-replicator {} for machine {} to {}:{}", HERALD_VERSION,
                 to_string(config.machine), config.server.host, config.server.port);
    sd_notify(0, "READY=1");
    for (;;) {
        const timespec interval{kStatusSeconds, 0};
        const int signal = sigtimedwait(&signals, nullptr, &interval);
        if (signal > 0) {
            spdlog::info("{}: stopping; writes are still tracked", strsignal(signal));
            break;
        }
        sd_notify(0, ("STATUS=" + service.summary()).c_str());
    }
    sd_notify(0, "STOPPING=1");
    const char* hangs = nullptr;
    if (!service.stop()) {
        hangs = "a disk";
    } else if (!(*control)->stop(std::chrono::steady_clock::now() + kConnectionsMax)) {
        hangs = "what a client asked to look at";
    } else if (!host.state->written_by(std::chrono::steady_clock::now() + kStateMax)) {
        hangs = "the state directory";
    }
    if (hangs) {
        // A disk may hang in its freeze: the log is to name it all the same.
        gate->open_for_good();
        spdlog::warn("{} does not answer: ending without it", hangs);
        logger->flush();
        std::_Exit(0);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    // Segments do not lie in the heap (user/base/large_memory.h); the rest is small, and an arena
    // for each of a disk's threads would only hold on to it.
    mallopt(M_ARENA_MAX, 2);

    std::string file = "/etc/herald/replicator.toml";
    bool check_only = false;
    CLI::App app("Protects this machine's disks: notes what is written, reads and sends it.",
                 "herald-replicator");
    app.footer(kExamples);
    app.set_version_flag("--version", std::string("herald-replicator ") + HERALD_VERSION);
    app.add_option("--config", file, "TOML configuration file")->capture_default_str();
    app.add_flag("--check-config", check_only, "Read configuration and certificates, then exit");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error, 2);
    }

    auto config = load_config(file);
    if (!config) return complain(config.error());
    auto tls = wire::TlsContext::load(config->tls, wire::TlsSide::client);
    if (!tls) return complain(tls.error());
    if (check_only) {
        std::printf("%s: valid\n", file.c_str());
        return 0;
    }
    return run(*config, *tls);
}
