// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/digest_compare.h"

#include <unistd.h>

#include <set>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::replicator;

namespace {

constexpr uint64_t kBlock = HERALD_BLOCK_BYTES;
// The last block is short.
constexpr uint64_t kDiskBytes = 37 * kBlock + 4096;

struct Disk {
    test::TempDir dir;
    Bytes bytes = Bytes(kDiskBytes);
    std::filesystem::path path = dir.path() / "disk";
    DiskWait wait;
    std::unique_ptr<DiskReader> reader;
    std::set<uint64_t> different;
    CompareHooks hooks;

    Disk() {
        for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i / 7 + i / kBlock);
        auto fd = open_file(path, O_WRONLY | O_CREAT);
        REQUIRE(fd);
        REQUIRE(write_exact(fd->get(), 0, bytes, "disk"));
        hooks.digests = [this](uint64_t first, uint64_t count) -> Result<Bytes> {
            Bytes all;
            for (uint64_t b = first; b < first + count; ++b) {
                const auto digest = xxh3_128(
                    ByteView(bytes).subspan(b * kBlock, std::min(kBlock, kDiskBytes - b * kBlock)));
                all.insert(all.end(), digest.bytes.begin(), digest.bytes.end());
            }
            return all;
        };
        hooks.differs = [this](tracker::BlockRun run) { different.insert(run.first); };
        hooks.keep_on = [](uint64_t) { return true; };
    }
    // False where the file system has no O_DIRECT.
    bool open() {
        auto opened = DiskReader::open(path, IoEngineKind::automatic, 4, 4 * kBlock, wait);
        if (!opened && opened.error().sys == EINVAL) {
            WARN("SKIPPED: no O_DIRECT here");
            return false;
        }
        REQUIRE(opened);
        reader = std::move(*opened);
        return true;
    }
};

}  // namespace

TEST_CASE_METHOD(Disk, "a disk that is what the server has differs nowhere") {
    if (!open()) return;
    auto outcome = compare_digests(*reader, kDiskBytes, 4 * kBlock, hooks);
    REQUIRE(outcome);
    REQUIRE(*outcome == CompareOutcome::finished);
    REQUIRE(different.empty());
    REQUIRE(reader->read_bytes() == kDiskBytes);
}

TEST_CASE_METHOD(Disk, "changed blocks and unknown digests differ, the short last block too") {
    if (!open()) return;
    bytes[3 * kBlock + 5] ^= std::byte{1};
    bytes[37 * kBlock + 4095] ^= std::byte{1};
    const auto known = hooks.digests;
    hooks.digests = [known](uint64_t first, uint64_t count) {
        auto all = known(first, count);
        std::fill_n(all->begin() + 20 * 16, 16, std::byte{0});
        return all;
    };
    REQUIRE(compare_digests(*reader, kDiskBytes, 4 * kBlock, hooks));
    REQUIRE(different == std::set<uint64_t>{3, 20, 37});
}

TEST_CASE_METHOD(Disk, "a compare stops when told, and fails on an answer of the wrong size") {
    if (!open()) return;
    hooks.keep_on = [](uint64_t done) { return done < 8 * kBlock; };
    auto outcome = compare_digests(*reader, kDiskBytes, 4 * kBlock, hooks);
    REQUIRE(outcome);
    REQUIRE(*outcome == CompareOutcome::stopped);
    REQUIRE(reader->in_flight() == 0);
    hooks.digests = [](uint64_t, uint64_t) -> Result<Bytes> { return Bytes(3); };
    REQUIRE_FALSE(compare_digests(*reader, kDiskBytes, 4 * kBlock, hooks));
}
