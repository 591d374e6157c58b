// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/output.h"

#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/shell.h"
#include "tools/herald/exit_status.h"

using namespace herald;
using namespace herald::cli;

TEST_CASE("a listing prints names from other machines without obeying them") {
    wire::DiskInfo disk;
    disk.disk = Uuid::random();
    disk.name = "evil\x1b[2Jname \xff";
    const std::vector<wire::DiskInfo> disks = {disk};
    CHECK(disks_table(disks, 0).find('\x1b') == std::string::npos);
    const auto json = nlohmann::json::parse(disks_json(disks));
    CHECK(json["disks"].size() == 1);
    CHECK(json["disks"][0]["newest_point"].is_null());
}

TEST_CASE("when a disk was last heard of is shown by the server's count, or that it was not yet") {
    wire::DiskInfo disk;
    disk.disk = Uuid::random();
    disk.last_heard_ns = 1795442706'250'000'000;
    disk.unheard_ms = 61'000;
    // This host's clock is a day late.
    const std::string table =
        disks_table(std::vector{disk}, disk.last_heard_ns - 86'400'000'000'000);
    CHECK(table.find("1 min 01 s ago") != std::string::npos);
    auto json = nlohmann::json::parse(disks_json(std::vector{disk}));
    CHECK(json["disks"][0]["last_heard"] == "2026-11-23T14:05:06.250Z");
    CHECK(json["disks"][0]["unheard_ms"] == 61'000);
    disk.last_heard_ns = 0;
    CHECK(disks_table(std::vector{disk}, 0).find("not yet") != std::string::npos);
    json = nlohmann::json::parse(disks_json(std::vector{disk}));
    CHECK(json["disks"][0]["last_heard"].is_null());
    CHECK(json["disks"][0]["unheard_ms"] == 61'000);
}

TEST_CASE("points as JSON carry every field of the protocol") {
    wire::PointInfo point;
    point.id = Uuid::random();
    point.time_ns = 1795442706'250'000'000;
    point.consistency = "filesystem";
    point.sent_bytes = 100;
    point.raw_bytes = 215;
    const auto json = nlohmann::json::parse(points_json({}, std::vector{point}));
    CHECK(json["points"][0]["time"] == "2026-11-23T14:05:06.250Z");
    CHECK(json["points"][0]["id"] == to_string(point.id));
    CHECK(json["points"][0]["sent_bytes"] == 100);
    const std::string table = points_table({}, std::vector{point}, point.time_ns + 1'000'000'000);
    CHECK(table.find("2.1 : 1") != std::string::npos);
    CHECK(table.find(to_string(point.id).substr(0, 8)) != std::string::npos);
}

TEST_CASE("a refused point is shown as one, with its reason, and is no recovery point") {
    wire::PointInfo refused;
    refused.id = Uuid::random();
    refused.consistency = "filesystem";
    refused.refusal = "a scan is under way";
    const std::string table = points_table({}, std::vector{refused}, 1'000'000'000);
    CHECK(table.find("refused") != std::string::npos);
    CHECK(table.find("is no recovery point: a scan is under way") != std::string::npos);
    CHECK(table.find("No recovery point yet") != std::string::npos);
    CHECK(table.find("filesystem") == std::string::npos);
    const auto json = nlohmann::json::parse(points_json({}, std::vector{refused}));
    CHECK(json["points"][0]["refusal"] == "a scan is under way");
}

TEST_CASE("the status shows the catalog's space beside the store's") {
    wire::ServerStatus status;
    status.store_state = "ok";
    status.free_bytes = status.total_bytes = 1u << 30;
    status.catalog_state = "full";
    status.catalog_free_bytes = 1u << 20;
    status.catalog_total_bytes = 4u << 20;
    const std::string text = status_text("host", status);
    CHECK(text.find("store        ok: 1.0 GiB of 1.0 GiB free (100 %)") != std::string::npos);
    CHECK(text.find("catalog      full: 1.0 MiB of 4.0 MiB free (25 %)") != std::string::npos);
    const auto json = nlohmann::json::parse(status_json("host", status));
    CHECK(json["catalog_state"] == "full");
    CHECK(json["catalog_free_bytes"] == 1u << 20);
    CHECK(json["catalog_total_bytes"] == 4u << 20);
}

TEST_CASE("a ratio without bytes is not invented") {
    CHECK(ratio_text(0, 10) == "-");
    CHECK(ratio_text(10, 0) == "-");
}

TEST_CASE("an error's exit status says what a script can do about it") {
    const auto status = [](ErrorKind kind, int sys) {
        return int(exit_status_of({kind, "", sys}));
    };
    CHECK(status(ErrorKind::operator_needed, 0) == 1);
    CHECK(status(ErrorKind::operator_needed, EEXIST) == 3);
    CHECK(status(ErrorKind::operator_needed, EBUSY) == 3);
    CHECK(status(ErrorKind::retry, 0) == 4);
    CHECK(status(ErrorKind::corrupt, 0) == 5);
    CHECK(status(ErrorKind::operator_needed, ENOENT) == 6);
    CHECK(status(ErrorKind::operator_needed, EINTR) == 130);
}

TEST_CASE("what the program cannot print is a failure") {
    const std::string program = HERALD_BIN_DIR "/herald";
    CHECK(herald::test::run_shell(program + " --help").status == 0);
    const auto full = herald::test::run_shell(program + " --help 2>&1 >/dev/full");
    CHECK(full.status == 1);
    CHECK(full.has("cannot write to standard output: No space left"));
}
