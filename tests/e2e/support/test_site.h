// SPDX-License-Identifier: Apache-2.0
// TestSite: a site made by 'herald init' in a temporary directory, and a real process server of it
// on a free port of 127.0.0.1.
// Callers: one test. Owns: directory and server process. Failure: a failed REQUIRE with the
// server's own words.
#pragma once

#include <memory>

#include "tests/e2e/support/process.h"
#include "tests/temp_dir.h"
#include "tools/herald/enrolment.h"
#include "user/wire/http_client.h"

namespace herald::test {

class TestSite {
  public:
    TestSite();

    const std::filesystem::path& dir() const { return temp_.path(); }
    std::filesystem::path site() const { return temp_.path() / "site"; }
    std::filesystem::path store() const { return temp_.path() / "store"; }
    uint16_t port() const { return port_; }
    const Uuid& machine() const { return machine_; }
    Process& server() { return *server_; }

    // SIGKILL, and after a while a new start on the same port.
    void restart_server(std::chrono::milliseconds down = std::chrono::milliseconds(0));

    // A new connection with the certificate of a folder of the site: "machine", "operator", ...
    std::unique_ptr<wire::HttpClient> client(const std::string& folder) const;
    // herald with this site's operator configuration.
    Finished herald(std::vector<std::string> arguments) const;
    std::vector<std::string> herald_command(std::vector<std::string> arguments) const;

    // Every regular file below the store, with its size, as one text to compare.
    std::string store_listing() const;
    // The stored files that end in ".hrl", or otherwise all of the store, largest first.
    std::vector<std::filesystem::path> stored_files() const;

  private:
    void start_server();

    TempDir temp_;
    uint16_t port_ = 0;
    Uuid machine_;
    std::optional<Process> server_;
};

// A further machine of the site: its folder's name and its id.
struct EnrolledMachine {
    std::string folder;
    Uuid machine;
};
EnrolledMachine enrol_machine(const TestSite& site, const std::string& name);

wire::TlsFiles tls_files(const std::filesystem::path& folder, const std::string& what);

// A port that was free a moment ago.
uint16_t free_port();

}  // namespace herald::test
