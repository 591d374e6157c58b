// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/config.h"

#include "tests/catch.hpp"

using namespace herald;
using process_server::parse_config;

namespace {

constexpr char kMinimal[] = R"(
[tls]
authority = "a.crt"
certificate = "/abs/s.crt"
key = "s.key"
[store]
path = "data/store"
)";

std::string refusal(const std::string& text) {
    auto config = parse_config(text, "/etc/herald", "server.toml");
    return config ? "" : config.error().message;
}

}  // namespace

TEST_CASE("a minimal configuration has the documented defaults, and paths beside the file") {
    auto config = parse_config(kMinimal, "/etc/herald", "server.toml");
    REQUIRE(config);
    CHECK(config->tls.authority == "/etc/herald/a.crt");
    CHECK(config->tls.certificate == "/abs/s.crt");
    CHECK(config->store == "/etc/herald/data/store");
    CHECK(config->catalog == "/etc/herald/data/catalog.sqlite");
    CHECK(config->server.port == 9443);
    CHECK(config->server.address == "0.0.0.0");
    CHECK(config->service.space.free_bytes_min == 536870912);
    CHECK(config->service.silent_after_s == 90);
}

TEST_CASE("every key is read") {
    auto config = parse_config(std::string(kMinimal) + R"(
[server]
address = "127.0.0.1"
port = 0
workers = 2
[catalog]
path = "c.sqlite"
[limits]
free_bytes_min = 1048576
free_bytes_plenty = 0
free_percent_warning = 3
free_percent_alert = 2
free_percent_slow = 1
retry_after_seconds = 9
silent_after_seconds = 31
connections_max = 10
connections_per_address_max = 11
bodies_bytes_max = 16777216
)",
                               "/x", "server.toml");
    if (!config) FAIL(config.error().message);
    CHECK(config->server.address == "127.0.0.1");
    CHECK(config->server.port == 0);
    CHECK(config->server.workers == 2);
    CHECK(config->catalog == "/x/c.sqlite");
    CHECK(config->service.space.free_bytes_min == 1048576);
    CHECK(config->service.space.free_bytes_plenty == 0);
    CHECK(config->service.space.warning_percent == 3);
    CHECK(config->service.space.alert_percent == 2);
    CHECK(config->service.space.slow_percent == 1);
    CHECK(config->service.retry_after_s == 9);
    CHECK(config->service.silent_after_s == 31);
    CHECK(config->server.connections_max == 10);
    CHECK(config->server.connections_per_address_max == 11);
    CHECK(config->server.bodies_bytes_max == 16777216);
}

TEST_CASE("a mistake is named with its file and key") {
    const std::string minimal = kMinimal;
    CHECK(refusal(minimal + "[limits]\nfree_bytes = 1\n") ==
          "server.toml: limits.free_bytes is not known");
    CHECK(refusal(minimal + "[sever]\nport = 1\n") == "server.toml: sever is not known");
    CHECK(refusal("port = 1\n" + minimal) == "server.toml: port is not known");
    CHECK(refusal(minimal + "[server]\nport = 70000\n").find("server.port") != std::string::npos);
    CHECK(refusal(minimal + "[server]\nport = -1\n").find("server.port") != std::string::npos);
    CHECK(refusal(minimal + "[server]\nport = \"9443\"\n").find("server.port") !=
          std::string::npos);
    CHECK(refusal(minimal + "[server]\naddress = 1\n").find("server.address") != std::string::npos);
    CHECK(refusal(minimal + "[limits]\nbodies_bytes_max = 1\n").find("bodies_bytes_max") !=
          std::string::npos);
    CHECK(refusal("[store]\npath = \"x\"\n").find("tls.authority is missing") != std::string::npos);
    CHECK(refusal("[tls]\nauthority = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n")
              .find("store.path is missing") != std::string::npos);
    CHECK(refusal("a = = b").find("server.toml:1") == 0);
}
