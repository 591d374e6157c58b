// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/e2e/support/test_site.h"
#include "tests/e2e/support/test_stream.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::test;
using nlohmann::json;

namespace {

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("disks, points and status show what the server holds") {
    TestSite site;
    auto machine = site.client("machine");

    const auto none = site.herald({"disks"});
    CHECK(none.status == 0);
    CHECK(has(none.out, "no disk yet"));

    TestStream stream(site.machine(), 2u << 20, test_seed());
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "first");
    stream.deliver(*machine, "second");

    const auto disks = site.herald({"disks"});
    INFO(disks.err);
    REQUIRE(disks.status == 0);
    CHECK(has(disks.out, to_string(stream.disk()).substr(0, 8)));
    CHECK(has(disks.out, "/dev/test on web1"));
    CHECK(has(disks.out, "2.0 MiB"));

    const auto disks_json = json::parse(site.herald({"disks", "--json"}).out);
    REQUIRE(disks_json["disks"].size() == 1);
    CHECK(disks_json["disks"][0]["disk"] == to_string(stream.disk()));
    CHECK(disks_json["disks"][0]["machine"] == to_string(site.machine()));
    CHECK(disks_json["disks"][0]["points"] == 2);
    CHECK(disks_json["disks"][0]["disk_bytes"] == 2u << 20);

    const auto points = site.herald({"points", "/dev/test"});
    REQUIRE(points.status == 0);
    CHECK(has(points.out, "first"));
    CHECK(has(points.out, "second"));
    CHECK(has(points.out, "filesystem"));
    const auto points_json = json::parse(site.herald({"points", "/dev/test", "--json"}).out);
    REQUIRE(points_json["points"].size() == 2);
    CHECK(points_json["points"][0]["name"] == "first");
    CHECK(points_json["points"][0]["time"] == "2026-11-23T14:06:06.000Z");
    CHECK(points_json["points"][1]["sent_bytes"] > 0);

    const auto status = site.herald({"status", "--json"});
    REQUIRE(status.status == 0);
    CHECK(json::parse(status.out)["disks"] == 1);
    CHECK(site.herald({"status"}).status == 0);
}

TEST_CASE("a refused point is listed only with --all, with its reason") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, test_seed());
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "good");
    stream.deliver(*machine, "restless", false);
    const auto plain = site.herald({"points", "/dev/test"});
    CHECK_FALSE(has(plain.out, "restless"));
    const auto all = site.herald({"points", "/dev/test", "--all"});
    INFO(all.out << all.err);
    REQUIRE(all.status == 0);
    CHECK(has(all.out, "good"));
    CHECK(has(all.out, "restless"));
    CHECK(has(all.out, "is no recovery point: the last scan did not find the disk quiescent"));
    const auto listed = json::parse(site.herald({"points", "/dev/test", "--all", "--json"}).out);
    REQUIRE(listed["points"].size() == 2);
    CHECK(listed["points"][0]["refusal"] == "");
    CHECK(listed["points"][1]["refusal"] != "");
    // It cannot be restored, not even by its id.
    const auto restored =
        site.herald({"restore", "/dev/test", "--point", std::string(listed["points"][1]["id"]),
                     "--to", (site.dir() / "image").native()});
    CHECK(restored.status == 6);
}

TEST_CASE("an unknown disk, an unknown point and an ambiguous name are refused by name") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream one(site.machine(), 1u << 20, 1);
    TestStream two(site.machine(), 1u << 20, 2);
    for (TestStream* stream : {&one, &two}) {
        REQUIRE(stream->open_session(*machine).status == 200);
        stream->deliver(*machine, "point");
    }
    const auto unknown = site.herald({"points", "/dev/other"});
    CHECK(unknown.status == 6);
    CHECK(has(unknown.err, to_string(one.disk())));
    const auto ambiguous = site.herald({"points", "/dev/test"});
    CHECK(ambiguous.status == 1);
    CHECK(has(ambiguous.err, to_string(one.disk())));
    CHECK(has(ambiguous.err, to_string(two.disk())));
    const auto no_point = site.herald({"restore", to_string(one.disk()), "--point", "00000000",
                                       "--to", (site.dir() / "image").native()});
    CHECK(no_point.status == 6);
    CHECK(has(no_point.err, "point"));
    const auto too_old =
        site.herald({"restore", to_string(one.disk()), "--time", "2020-01-01T00:00:00Z", "--to",
                     (site.dir() / "image").native()});
    CHECK(too_old.status == 6);
}

TEST_CASE("a wrong command line is refused before anything is tried") {
    TestSite site;
    for (const auto& arguments : std::vector<std::vector<std::string>>{
             {"restore", "x", "--to", "y"},
             {"restore", "x", "--to", "y", "--latest", "--point", "1"},
             {"restore", "x", "--to", "y", "--time", "yesterday"},
             {"restore", "x", "--latest"},
             {"points"},
             {"nonsense"}})
        CHECK(site.herald(arguments).status == 2);
}

TEST_CASE("a foreign authority on either side is refused with the side named") {
    TestSite site;
    TestSite other;
    const auto config = site.dir() / "mixed.toml";
    const auto write_config = [&](const std::filesystem::path& authority,
                                  const std::filesystem::path& own, const std::string& host) {
        const std::string text = fmt::format(
            "[server]\nhost='{}'\nport={}\n[tls]\nauthority='{}'\ncertificate='{}'\nkey='{}'\n",
            host, site.port(), authority.native(), (own / "operator.pem").native(),
            (own / "operator.key").native());
        REQUIRE(replace_file(config, as_bytes(text)));
        return run({HERALD_BIN_DIR "/herald", "disks", "--config", config.native()}, site.dir());
    };
    const auto ours = site.site() / "operator";
    const auto foreign = other.site() / "operator";
    const auto right = write_config(ours / "ca.pem", ours, "127.0.0.1");
    INFO(right.err);
    CHECK(right.status == 0);
    const auto foreign_client = write_config(ours / "ca.pem", foreign, "127.0.0.1");
    CHECK(foreign_client.status == 1);
    CHECK(has(foreign_client.err, "the server refused our certificate"));
    const auto foreign_server = write_config(foreign / "ca.pem", ours, "127.0.0.1");
    CHECK(foreign_server.status == 1);
    CHECK(has(foreign_server.err, "server's certificate is not to be trusted"));
    // The server's certificate is for 127.0.0.1 alone.
    const auto wrong_host = write_config(ours / "ca.pem", ours, "localhost");
    CHECK(wrong_host.status == 1);
    CHECK(has(wrong_host.err, "not for this host name"));
}

TEST_CASE("a machine's certificate may not list, and a dead server is said to be unreachable") {
    TestSite site;
    const auto config = site.dir() / "machine.toml";
    const auto folder = site.site() / "machine";
    REQUIRE(replace_file(
        config, as_bytes(fmt::format("[server]\nhost='127.0.0.1'\nport={}\n[tls]\nauthority='{}'\n"
                                     "certificate='{}'\nkey='{}'\n",
                                     site.port(), (folder / "ca.pem").native(),
                                     (folder / "machine.pem").native(),
                                     (folder / "machine.key").native()))));
    const auto machine =
        run({HERALD_BIN_DIR "/herald", "disks", "--config", config.native()}, site.dir());
    CHECK(machine.status == 1);
    CHECK(has(machine.err, "operator"));
    site.server().signal(9);
    REQUIRE(site.server().wait(std::chrono::seconds(10)));
    const auto dead = site.herald({"disks"});
    CHECK(dead.status == 4);
    CHECK(has(dead.err, "not reachable"));
}
