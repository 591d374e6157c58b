// SPDX-License-Identifier: Apache-2.0
// herald-process-server: the daemon around Service. Exit status: 0 after a clean stop, 1 when it
// could not start or the configuration is wrong.
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <thread>

#include "user/base/usage.h"
#include "user/process_server/config.h"
#include "user/process_server/restored_catalog.h"

using namespace herald;

namespace {

constexpr char kExamples[] = R"(Examples:
  herald-process-server --config /etc/herald/process-server.toml
  herald-process-server --config server.toml --check-config

A configuration (paths are relative to the file):
  [server]
  address = "0.0.0.0"
  port = 9443
  [tls]
  authority = "ca.pem"
  certificate = "server.pem"
  key = "server.key"
  [store]
  path = "/var/lib/herald/store")";

int refuse(const Error& error) {
    spdlog::error("{}", error.message);
    return 1;
}

// Waits for SIGTERM or SIGINT on its own thread, so that stopping needs no signal handler.
class StopSignals {
  public:
    StopSignals() {
        sigemptyset(&signals_);
        for (int signal : {SIGTERM, SIGINT, SIGUSR2}) sigaddset(&signals_, signal);
        // Before any other thread: they inherit it.
        pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    }
    void start(wire::HttpServer& server) {
        thread_ = std::thread([this, &server] {
            int signal = 0;
            sigwait(&signals_, &signal);
            if (signal == SIGUSR2) return;  // from end()
            sd_notify(0, "STOPPING=1");
            spdlog::info("signal {}: finishing the requests under way", signal);
            server.stop();
        });
    }
    // Before the server goes: the thread may be about to stop it.
    void end() {
        if (!thread_.joinable()) return;
        pthread_kill(thread_.native_handle(), SIGUSR2);
        thread_.join();
    }

  private:
    sigset_t signals_{};
    std::thread thread_;
};

int adopt(store::ObjectStore& store, vault::Catalog& catalog) {
    auto restored = process_server::adopt_restored_catalog(store, catalog, Uuid::random(),
                                                           uint64_t(std::time(nullptr)));
    if (!restored) return refuse(restored.error());
    spdlog::info(
        "restored catalog: {} disks, epochs from {} on; removed {} objects that it does not know. "
        "Start the server: every replicator compares digests and sends what differs",
        restored->disks, restored->epoch, restored->removed);
    return 0;
}

int run(const process_server::Config& config, bool restored) {
    StopSignals signals;
    auto tls = wire::TlsContext::load(config.tls, wire::TlsSide::server);
    if (!tls) return refuse(tls.error());
    auto store = store::open_directory_store(config.store);
    if (!store) return refuse(store.error());
    auto catalog = vault::open_sqlite_catalog(config.catalog);
    if (!catalog) return refuse(catalog.error());
    if (restored) return adopt(**store, **catalog);
    auto service = process_server::Service::open(**store, **catalog, config.service);
    if (!service) return refuse(service.error());
    if ((*service)->garbage_removed() > 0) {
        spdlog::info("store: removed {} objects that were never committed",
                     (*service)->garbage_removed());
    }
    auto server = wire::HttpServer::listen(config.server, *tls, **service);
    if (!server) return refuse(server.error());
    (*service)->set_counters([&server] { return (*server)->counters(); });
    signals.start(**server);
    spdlog::info("listening on {} port {}, store {}", config.server.address, (*server)->port(),
                 config.store.native());
    sd_notify(0, "READY=1");
    (*server)->run();
    signals.end();
    spdlog::info("stopped");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"Receives change streams over HTTPS, keeps them and serves any moment back."};
    app.name("herald-process-server");
    app.footer(kExamples);
    std::string path = "/etc/herald/process-server.toml";
    bool check = false;
    bool restored = false;
    app.add_option("--config", path, "Configuration file")->capture_default_str();
    app.add_flag("--check-config", check, "Read the configuration, say what is wrong, and end");
    app.add_flag("--restored-catalog", restored,
                 "The catalog is a backup: end all sessions, remove the segments that it does not "
                 "know, and end");
    app.set_version_flag("--version", "herald-process-server " HERALD_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error, 2);
    }

    auto log =
        std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    log->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    log->flush_on(spdlog::level::info);
    spdlog::set_default_logger(log);

    auto config = process_server::load_config(path);
    if (!config) return refuse(config.error());
    if (check) {
        auto tls = wire::TlsContext::load(config->tls, wire::TlsSide::server);
        if (!tls) return refuse(tls.error());
        fmt::print("{}: ok; store {}, catalog {}, address {} port {}\n", path,
                   config->store.native(), config->catalog.native(), config->server.address,
                   config->server.port);
        return 0;
    }
    return run(*config, restored);
}
