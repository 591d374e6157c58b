// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/support/test_site.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <thread>

#include "tests/catch.hpp"
#include "user/base/file.h"

namespace herald::test {

namespace fs = std::filesystem;

uint16_t free_port() {
    const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    REQUIRE(::bind(fd.get(), generic, length) == 0);
    REQUIRE(::getsockname(fd.get(), generic, &length) == 0);
    return ntohs(address.sin_port);
}

wire::TlsFiles tls_files(const fs::path& folder, const std::string& what) {
    return {folder / "ca.pem", folder / (what + ".pem"), folder / (what + ".key")};
}

TestSite::TestSite() : port_(free_port()) {
    cli::InitRequest request;
    request.dir = site();
    request.machine_name = "web1";
    request.site.port = port_;
    request.site.server_hosts = {"127.0.0.1"};
    request.site.state_dir = temp_.path() / "state";
    request.site.store_dir = store();
    request.site.run_dir = temp_.path() / "run";
    const auto folders = cli::init_site(request);
    INFO((folders ? "" : folders.error().message));
    REQUIRE(folders);
    for (const auto& folder : *folders)
        if (folder.what == "machine") machine_ = folder.machine;
    start_server();
}

void TestSite::start_server() {
    server_ = Process::start({HERALD_BIN_DIR "/herald-process-server", "--config",
                              (site() / "server/process-server.toml").native()},
                             temp_.path(), "server");
    for (int i = 0; i < 200; ++i) {
        const auto answer =
            client("operator")->send({"GET", "/v1/status", {}, {}}, std::chrono::seconds(5));
        if (answer && answer->status == 200) return;
        INFO(server_->err());
        REQUIRE(server_->running());
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    FAIL("the server does not answer: " + server_->err());
}

void TestSite::restart_server(std::chrono::milliseconds down) {
    server_->signal(SIGKILL);
    REQUIRE(server_->wait(std::chrono::seconds(10)));
    std::this_thread::sleep_for(down);
    start_server();
}

std::unique_ptr<wire::HttpClient> TestSite::client(const std::string& folder) const {
    const std::string what = folder.substr(0, folder.find('-'));
    auto tls = wire::TlsContext::load(tls_files(site() / folder, what), wire::TlsSide::client);
    INFO((tls ? "" : tls.error().message));
    REQUIRE(tls);
    return std::make_unique<wire::HttpClient>(wire::Endpoint{"127.0.0.1", port_}, *tls);
}

std::vector<std::string> TestSite::herald_command(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), HERALD_BIN_DIR "/herald");
    arguments.insert(arguments.end(), {"--config", (site() / "operator/herald.toml").native()});
    return arguments;
}

Finished TestSite::herald(std::vector<std::string> arguments) const {
    return run(herald_command(std::move(arguments)), temp_.path());
}

std::string TestSite::store_listing() const {
    std::vector<std::string> lines;
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(store(), ignored))
        if (entry.is_regular_file(ignored))
            lines.push_back(
                fmt::format("{} {}\n", entry.path().native(), entry.file_size(ignored)));
    std::sort(lines.begin(), lines.end());
    std::string text;
    for (const auto& line : lines) text += line;
    return text;
}

std::vector<fs::path> TestSite::stored_files() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::recursive_directory_iterator(store()))
        if (entry.is_regular_file()) all.push_back(entry.path());
    std::sort(all.begin(), all.end(), [](const fs::path& a, const fs::path& b) {
        return fs::file_size(a) > fs::file_size(b);
    });
    return all;
}

EnrolledMachine enrol_machine(const TestSite& site, const std::string& name) {
    const auto folder = cli::enrol(site.site(), cli::EnrolKind::machine, name);
    INFO((folder ? "" : folder.error().message));
    REQUIRE(folder);
    return {folder->path.filename().native(), folder->machine};
}

}  // namespace herald::test
