// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/config.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::replicator;

namespace {

const std::string kLeast =
    "[server]\nhost = \"backup\"\n"
    "[tls]\nauthority = \"ca.pem\"\ncertificate = \"/abs/m.pem\"\nkey = \"m.key\"\n"
    "[machine]\nid = \"0b77e029-d90e-8137-a94a-7fa834bb6de6\"\n";

std::string refusal(const std::string& text) {
    auto config = parse_config(text, "r.toml", "/etc/herald");
    REQUIRE_FALSE(config);
    REQUIRE(config.error().kind == ErrorKind::operator_needed);
    return config.error().message;
}

bool names(const std::string& message, const char* key) {
    return message.find(key) != std::string::npos;
}

}  // namespace

TEST_CASE("the least configuration is accepted, with paths relative to the file") {
    auto config = parse_config(kLeast, "r.toml", "/etc/herald");
    REQUIRE(config);
    REQUIRE(config->server.port == 9443);
    REQUIRE(config->tls.authority == "/etc/herald/ca.pem");
    REQUIRE(config->tls.certificate == "/abs/m.pem");
    REQUIRE(config->points_every_s == 0);
    REQUIRE_FALSE(config->machine_name.empty());
}

TEST_CASE("every key of the configuration is read") {
    auto config = parse_config(kLeast +
                                   "name = \"web1\"\n[replicator]\ncontrol_socket = \"c.sock\"\n"
                                   "guardian_socket = \"g.sock\"\nstate_dir = \"s\"\n"
                                   "bpf_dir = \"b\"\nio_engine = \"pread\"\n"
                                   "segment_bytes = 1048576\nsegment_age_ms = 200\n"
                                   "pass_interval_ms = 100\nrate_limit_bytes_s = 5000000\n"
                                   "[points]\nevery_s = 30\n"
                                   "[[disk]]\npath = \"/dev/sda\"\n[[disk]]\npath = \"/dev/sdb\"\n",
                               "r.toml", "/etc/herald");
    REQUIRE(config);
    REQUIRE(config->machine_name == "web1");
    REQUIRE(config->control_socket == "/etc/herald/c.sock");
    REQUIRE(config->guardian_socket == "/etc/herald/g.sock");
    REQUIRE(config->state_dir == "/etc/herald/s");
    REQUIRE(config->bpf_dir == "/etc/herald/b");
    REQUIRE(config->io_engine == IoEngineKind::pread);
    REQUIRE(config->segment_bytes == 1048576);
    REQUIRE(config->segment_age_ms == 200);
    REQUIRE(config->pass_interval_ms == 100);
    REQUIRE(config->rate_limit_bytes_s == 5000000);
    REQUIRE(config->points_every_s == 30);
    REQUIRE(config->disks.size() == 2);
}

TEST_CASE("what is wrong with a configuration is named by its key") {
    REQUIRE(names(refusal(kLeast + "nmae = \"x\"\n"), "machine.nmae"));
    REQUIRE(names(refusal(kLeast + "[points]\nevery_s = \"often\"\n"), "points.every_s"));
    REQUIRE(names(refusal(kLeast + "[points]\nevery_s = -1\n"), "points.every_s"));
    REQUIRE(
        names(refusal(kLeast + "[replicator]\nio_engine = \"fast\"\n"), "replicator.io_engine"));
    REQUIRE(names(refusal(kLeast + "[replicator]\nsegment_bytes = 99999999\n"),
                  "replicator.segment_bytes"));
    REQUIRE(names(refusal(kLeast + "[disk]\npath = \"/dev/sda\"\n"), "disk"));
    REQUIRE(names(refusal(kLeast + "[[disk]]\nname = \"sda\"\n"), "disk.name"));
    REQUIRE(names(refusal(kLeast + "[[disk]]\n"), "disk.path"));
    REQUIRE(names(refusal("[server]\nhost = \"b\"\n"), "tls.authority"));
    REQUIRE(names(refusal("[machine]\nid = \"x\"\n"), "server.host"));
    REQUIRE(names(refusal("[server\n"), "line 1"));
}
