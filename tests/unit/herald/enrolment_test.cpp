// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/enrolment.h"

#include <sys/stat.h>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "tools/herald/config.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::cli;
namespace fs = std::filesystem;

namespace {

InitRequest request_in(const fs::path& dir) {
    InitRequest request;
    request.dir = dir;
    request.machine_name = "web1";
    return request;
}

size_t files_in(const fs::path& dir) {
    return size_t(std::distance(fs::directory_iterator(dir), {}));
}

unsigned mode_of(const fs::path& path) {
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    return st.st_mode & 07777;
}

std::string text_of(const fs::path& path) {
    const auto bytes = read_file(path, 1 << 20);
    REQUIRE(bytes);
    return std::string(as_text(*bytes));
}

}  // namespace

TEST_CASE("init makes four folders whose certificates are accepted on both sides") {
    const test::TempDir dir;
    const auto site = dir.path() / "site";
    const auto folders = init_site(request_in(site));
    REQUIRE(folders);
    CHECK(folders->size() == 4);
    for (const auto& folder : *folders)
        for (const auto& file : folder.files) {
            CAPTURE(folder.path / file);
            CHECK(fs::exists(folder.path / file));
            if (file.ends_with(".key")) CHECK(mode_of(folder.path / file) == 0600);
        }
    CHECK(mode_of(site / "authority") == 0700);
    const auto config = load_operator_config(site / "operator" / "herald.toml");
    REQUIRE(config);
    CHECK(wire::TlsContext::load(config->tls, wire::TlsSide::client));
    const auto server = site / "server";
    CHECK(wire::TlsContext::load({server / "ca.pem", server / "server.pem", server / "server.key"},
                                 wire::TlsSide::server));
    const auto machine = (*folders)[2];
    CHECK_FALSE(machine.machine.is_nil());
    CHECK(text_of(site / "machine" / "replicator.toml").find(to_string(machine.machine)) !=
          std::string::npos);
    // Nothing hidden stays beside it.
    CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("init overwrites nothing") {
    const test::TempDir dir;
    REQUIRE(init_site(request_in(dir.path() / "site")));
    const std::string before = text_of(dir.path() / "site/authority/ca.pem");
    const auto again = init_site(request_in(dir.path() / "site"));
    REQUIRE_FALSE(again);
    CHECK(again.error().sys == EEXIST);
    CHECK(text_of(dir.path() / "site/authority/ca.pem") == before);
    CHECK(files_in(dir.path()) == 1);

    REQUIRE(replace_file(dir.path() / "file", as_bytes("x")));
    CHECK(init_site(request_in(dir.path() / "file")).error().sys == EEXIST);
    // An empty directory is as good as none.
    fs::create_directory(dir.path() / "empty");
    CHECK(init_site(request_in(dir.path() / "empty")));
}

TEST_CASE("an init that fails half way leaves nothing") {
    const test::TempDir dir;
    auto request = request_in(dir.path() / "site");
    request.site.server_hosts = {std::string(300, 'a') + " not a host"};
    REQUIRE_FALSE(init_site(request));
    CHECK(files_in(dir.path()) == 0);
    request = request_in(dir.path() / "site");
    request.machine_name = "../evil";
    REQUIRE_FALSE(init_site(request));
    CHECK(files_in(dir.path()) == 0);
}

TEST_CASE("a further machine and operator are signed by the same authority") {
    const test::TempDir dir;
    const auto site = dir.path() / "site";
    auto request = request_in(site);
    request.site.server_hosts = {"backup.example.net"};
    request.site.port = 9555;
    REQUIRE(init_site(request));
    const auto machine = enrol(site, EnrolKind::machine, "web2");
    REQUIRE(machine);
    CHECK(machine->path == site / "machine-web2");
    CHECK(text_of(site / "machine-web2/ca.pem") == text_of(site / "authority/ca.pem"));
    CHECK(text_of(site / "machine-web2/replicator.toml").find("backup.example.net") !=
          std::string::npos);
    const auto alice = enrol(site, EnrolKind::operator_, "alice");
    REQUIRE(alice);
    const auto config = load_operator_config(site / "operator-alice/herald.toml");
    REQUIRE(config);
    CHECK(config->server.port == 9555);
    CHECK(wire::TlsContext::load(config->tls, wire::TlsSide::client));
    CHECK(enrol(site, EnrolKind::machine, "web2").error().sys == EEXIST);
    CHECK_FALSE(enrol(dir.path(), EnrolKind::machine, "web3"));
}
