// SPDX-License-Identifier: Apache-2.0
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch.hpp"
#include "tests/e2e/support/test_site.h"
#include "tests/e2e/support/test_stream.h"
#include "user/base/digest.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

bool holds(const fs::path& file, ByteView expected) {
    const auto bytes = read_file(file, 64u << 20);
    return bytes && std::equal(bytes->begin(), bytes->end(), expected.begin(), expected.end());
}

// Files that a restore to `image` may have left beside it, hidden ones included.
size_t files_named_like(const fs::path& image) {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator(image.parent_path()))
        count += has(entry.path().filename().native(), image.filename().native());
    return count;
}

void flip_byte(const fs::path& file, uint64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(int64_t(at));
    const char byte = char(stream.get());
    stream.seekp(int64_t(at));
    stream.put(char(byte ^ 0x10));
    REQUIRE(stream.good());
}

}  // namespace

TEST_CASE("every point is restored to exactly the bytes that the disk had") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 4u << 20, test_seed());
    REQUIRE(stream.open_session(*machine).status == 200);
    std::vector<Bytes> images;
    for (int i = 0; i < 5; ++i) {
        stream.deliver(*machine, fmt::format("point {}", i));
        images.push_back(stream.image());
        stream.deliver(*machine, "");
    }
    const std::string disk = to_string(stream.disk());
    const auto points = json::parse(site.herald({"points", disk, "--json"}).out)["points"];
    REQUIRE(points.size() == 5);
    const auto image = site.dir() / "image";
    for (size_t i = 0; i < points.size(); ++i) {
        const auto restored = site.herald({"restore", disk, "--point", points[i]["id"], "--to",
                                           image.native(), "--force", "--json", "--sha256"});
        INFO(restored.err);
        REQUIRE(restored.status == 0);
        CHECK(holds(image, images[i]));
        const auto report = json::parse(restored.out);
        CHECK(report["sha256"] == to_hex(sha256(images[i])));
        CHECK(report["bytes"] == 4u << 20);
        CHECK(report["point"] == points[i]["id"]);
    }
    // By time: the newest at or before. Points are a minute apart.
    REQUIRE(site.herald({"restore", disk, "--time", "2026-11-23T14:07:59Z", "--to", image.native(),
                         "--force"})
                .status == 0);
    CHECK(holds(image, images[1]));
    REQUIRE(site.herald({"restore", disk.substr(0, 8), "--time", "2026-11-23T14:08:06Z", "--to",
                         image.native(), "--force"})
                .status == 0);
    CHECK(holds(image, images[2]));
    const auto latest =
        site.herald({"restore", "/dev/test", "--latest", "--to", image.native(), "--force"});
    REQUIRE(latest.status == 0);
    CHECK(holds(image, images[4]));
    CHECK(has(latest.out, "MB/s"));
    CHECK(files_named_like(image) == 1);
}

TEST_CASE("a boundary is found and restored with one download of each segment") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, test_seed());
    REQUIRE(stream.open_session(*machine).status == 200);
    constexpr uint64_t kSegments = 40;
    for (uint64_t i = 1; i < kSegments; ++i) stream.deliver(*machine, "");
    stream.deliver(*machine, "the end");
    const std::string disk = to_string(stream.disk());
    const auto position =
        json::parse(site.herald({"points", disk, "--json"}).out)["points"][0]["position"];
    const auto requests = [&] {
        return json::parse(site.herald({"status", "--json"}).out)["requests"].get<uint64_t>();
    };
    const auto image = site.dir() / "image";
    // A moment itself takes a stream whose every boundary is one.
    const auto exact = site.herald(
        {"restore", disk, "--time", "2026-11-23T14:08:06Z", "--exact", "--to", image.native()});
    CHECK(exact.status == 1);
    CHECK(exact.err.find("not ordered") != std::string::npos);
    CHECK_FALSE(fs::exists(image));
    CHECK(site.herald({"restore", disk, "--latest", "--exact", "--to", image.native()}).status ==
          2);
    const uint64_t before = requests();
    const auto restored =
        site.herald({"restore", disk, "--position", to_string(position), "--to", image.native()});
    const uint64_t after = requests();
    INFO(restored.err);
    REQUIRE(restored.status == 0);
    CHECK(holds(image, stream.image()));
    // Beside them: disks, points, two lists of segments, and the asking for these numbers.
    CHECK(after - before >= kSegments);
    CHECK(after - before < kSegments + 10);
}

TEST_CASE("an existing image is refused, kept, and replaced only with --force") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, 3);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const auto image = site.dir() / "image";
    REQUIRE(replace_file(image, as_bytes("precious")));
    const auto refused = site.herald({"restore", "/dev/test", "--latest", "--to", image.native()});
    CHECK(refused.status == 3);
    CHECK(has(refused.err, image.native()));
    CHECK(holds(image, as_bytes("precious")));
    CHECK(site.herald({"restore", "/dev/test", "--latest", "--to", image.native(), "--force"})
              .status == 0);
    CHECK(holds(image, stream.image()));
    CHECK(site.herald({"restore", "/dev/test", "--latest", "--to", site.dir().native(), "--force"})
              .status == 3);
}

TEST_CASE("a flipped byte in a stored segment is refused with its name and leaves no image") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, test_seed());
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const auto files = site.stored_files();
    REQUIRE_FALSE(files.empty());
    const uint64_t bytes = fs::file_size(files[0]);
    const auto image = site.dir() / "image";
    const size_t places = by_tier(4, 16, 200);
    for (size_t i = 0; i < places; ++i) {
        const uint64_t at = bytes * i / places;
        flip_byte(files[0], at);
        const auto refused =
            site.herald({"restore", "/dev/test", "--latest", "--to", image.native()});
        INFO("byte " << at << ": " << refused.err);
        CHECK(refused.status == 5);
        CHECK(has(refused.err, "segment"));
        CHECK(has(refused.err, "an earlier point may not need it; nothing was left behind"));
        CHECK(files_named_like(image) == 0);
        flip_byte(files[0], at);
    }
    CHECK(site.herald({"restore", "/dev/test", "--latest", "--to", image.native()}).status == 0);
    CHECK(holds(image, stream.image()));
}

namespace {

// A restore that has begun its image and now waits for a server that no longer answers.
Process stuck_restore(TestSite& site, const fs::path& image) {
    auto restore = Process::start(
        site.herald_command({"restore", "/dev/test", "--latest", "--to", image.native()}),
        site.dir(), "restore");
    for (int i = 0; i < 20000 && files_named_like(image) == 0; ++i)
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    site.server().signal(SIGSTOP);
    return restore;
}

// Enough that a restore takes many times what it takes to stop the server.
void fill_for_long_restore(TestSite& site, TestStream& stream) {
    auto machine = site.client("machine");
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    for (int i = 0; i < 60; ++i) stream.deliver(*machine, "");
    stream.deliver(*machine, "last");
}

}  // namespace

TEST_CASE("a restore that is interrupted removes the image it half made") {
    TestSite site;
    TestStream stream(site.machine(), 16u << 20, 4);
    fill_for_long_restore(site, stream);
    const auto image = site.dir() / "image";
    auto restore = stuck_restore(site, image);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    CHECK(files_named_like(image) == 1);
    restore.signal(SIGINT);
    const auto finished = restore.wait(std::chrono::seconds(10));
    site.server().signal(SIGCONT);
    REQUIRE(finished);
    CHECK(finished->status == 130);
    CHECK(has(finished->err, "interrupted"));
    CHECK(files_named_like(image) == 0);
}

TEST_CASE("a restore outlives a restart of the server") {
    TestSite site;
    TestStream stream(site.machine(), 16u << 20, 5);
    fill_for_long_restore(site, stream);
    const auto image = site.dir() / "image";
    auto restore = stuck_restore(site, image);
    site.restart_server(std::chrono::milliseconds(700));
    const auto finished = restore.wait(std::chrono::seconds(50));
    REQUIRE(finished);
    INFO(finished->err);
    CHECK(finished->status == 0);
    CHECK(has(finished->err, "trying again"));
    CHECK(holds(image, stream.image()));
}
