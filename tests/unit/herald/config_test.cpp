// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/config.h"

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "tools/herald/config_text.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::cli;

namespace {

Result<OperatorConfig> load(const test::TempDir& dir, const std::string& text) {
    const auto file = dir.path() / "herald.toml";
    REQUIRE(replace_file(file, as_bytes(text)));
    return load_operator_config(file);
}

}  // namespace

TEST_CASE("the configuration that init writes is the one that is read") {
    const test::TempDir dir;
    Site site;
    site.server_hosts = {"backup.example.net", "192.0.2.10"};
    site.port = 9555;
    const auto config = load(dir, herald_toml(site));
    REQUIRE(config);
    CHECK(config->server.host == "backup.example.net");
    CHECK(config->server.port == 9555);
    CHECK(config->tls.key == dir.path() / "operator.key");
    CHECK(config->tls.authority == dir.path() / "ca.pem");
}

TEST_CASE("a configuration with a key missing or wrong is refused with its name") {
    const test::TempDir dir;
    const std::string tls = "[tls]\nauthority='a'\ncertificate='c'\nkey='k'\n";
    CHECK(load(dir, "[server]\nhost='h'\n" + tls));
    CHECK(load(dir, tls).error().message.find("'host'") != std::string::npos);
    CHECK(load(dir, "[server]\nhost=''\n" + tls).error().message.find("'host'") !=
          std::string::npos);
    CHECK(load(dir, "[server]\nhost='h'\nport=70000\n" + tls).error().message.find("70000") !=
          std::string::npos);
    CHECK(load(dir, "[server]\nhost='h'\n").error().message.find("'authority'") !=
          std::string::npos);
    CHECK(load(dir, "[server\n").error().message.find("line 1") != std::string::npos);
    const auto missing = load_operator_config(dir.path() / "absent.toml");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().sys == 0);
}

TEST_CASE("what a site remembers is read back as it was") {
    const test::TempDir dir;
    Site site;
    site.server_hosts = {"a \"quoted\" \\ name", "::1"};
    site.port = 1;
    site.run_dir = "/tmp/run";
    site.state_dir = "/tmp/state\nwith a line break";
    site.points_every_s = 7;
    site.valid_days = 9;
    REQUIRE(replace_file(dir.path() / "site.toml", as_bytes(site_toml(site))));
    const auto read = parse_site_toml(dir.path() / "site.toml");
    REQUIRE(read);
    CHECK(read->server_hosts == site.server_hosts);
    CHECK(read->port == 1);
    CHECK(read->run_dir == site.run_dir);
    CHECK(read->state_dir == site.state_dir);
    CHECK(read->points_every_s == 7);
    CHECK(read->valid_days == 9);
}
