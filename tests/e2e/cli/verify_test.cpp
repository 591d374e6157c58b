// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/catch.hpp"
#include "tests/e2e/support/test_site.h"
#include "tests/e2e/support/test_stream.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::test;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

Finished verify(const TestSite& site, const std::vector<fs::path>& files) {
    std::vector<std::string> command{HERALD_BIN_DIR "/hrl", "verify", "--json"};
    for (const auto& file : files) command.push_back(file.native());
    return run(command, site.dir());
}

}  // namespace

TEST_CASE("hrl verify finds any flipped bit of a stored segment") {
    TestSite site;
    auto machine = site.client("machine");
    // So small that each bit can have its turn.
    TestStream stream(site.machine(), 8192, 3);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const auto stored = site.stored_files();
    REQUIRE_FALSE(stored.empty());
    REQUIRE(verify(site, {stored[0]}).status == 0);
    const auto bytes = read_file(stored[0], 1u << 20);
    REQUIRE(bytes);
    REQUIRE(bytes->size() > 4096);  // with data, not a segment of zeroes
    const fs::path folder = site.dir() / "damaged";
    REQUIRE(fs::create_directory(folder));
    constexpr size_t kBytesEach = 64;  // of a run of the program, each bit in a file of its own
    for (size_t begin = 0; begin < bytes->size(); begin += kBytesEach) {
        std::vector<fs::path> files;
        for (size_t at = begin; at < std::min(begin + kBytesEach, bytes->size()); ++at) {
            for (int bit = 0; bit < 8; ++bit) {
                Bytes damaged = *bytes;
                damaged[at] ^= std::byte(1 << bit);
                files.push_back(folder / fmt::format("{}", files.size()));
                std::ofstream file(files.back(), std::ios::binary);
                file.write(reinterpret_cast<const char*>(damaged.data()),
                           std::streamsize(damaged.size()));
                REQUIRE(file.flush());
            }
        }
        const auto done = verify(site, files);
        CAPTURE(begin, done.err);
        CHECK(done.status != 0);
        const auto verdicts = json::parse(done.out);
        REQUIRE(verdicts.size() == files.size());
        for (size_t i = 0; i < files.size(); ++i) {
            if (verdicts[i]["ok"] != json(false)) {
                FAIL_CHECK("byte " << begin + i / 8 << ", bit " << i % 8 << " was not found");
            }
        }
    }
}
