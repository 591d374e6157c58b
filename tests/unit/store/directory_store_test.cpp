// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "tests/catch.hpp"
#include "tests/conformance/object_store_suite.h"
#include "tests/small_filesystem.h"
#include "tests/sync_recorder.h"
#include "tests/temp_dir.h"
#include "user/base/crash_point.h"

using namespace herald;
using store::open_directory_store;

namespace {

size_t files_below(const std::filesystem::path& path) {
    size_t files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
        files += entry.is_regular_file();
    }
    return files;
}

}  // namespace

TEST_CASE("a directory keeps the contract of an object store") {
    test::TempDir dir;
    std::unique_ptr<store::ObjectStore> store;
    test::object_store_suite([&]() -> store::ObjectStore& {
        store.reset();
        auto opened = open_directory_store(dir.path() / "store");
        REQUIRE(opened);
        store = std::move(*opened);
        return *store;
    });
}

TEST_CASE("a directory that another process uses is refused, with its name") {
    test::TempDir dir;
    auto first = open_directory_store(dir.path());
    REQUIRE(first);
    auto second = open_directory_store(dir.path());
    REQUIRE_FALSE(second);
    CHECK(second.error().message.find(dir.path().native()) != std::string::npos);
}

TEST_CASE("left-over temporary files are removed at opening and never listed") {
    test::TempDir dir;
    REQUIRE(open_directory_store(dir.path()));
    std::ofstream(dir.path() / "temporary" / "17") << "half an obj";
    auto store = open_directory_store(dir.path());
    REQUIRE(store);
    CHECK(test::names_in(**store, "").empty());
    CHECK(files_below(dir.path() / "temporary") == 0);
}

TEST_CASE("every name on the way to a new store and to its first object is synced") {
    test::TempDir dir;
    const auto root = dir.path() / "a" / "b" / "store";
    {
        const test::SyncRecorder syncs;
        REQUIRE(open_directory_store(root));
        for (const auto& folder : {dir.path(), dir.path() / "a", dir.path() / "a" / "b", root}) {
            CAPTURE(folder);
            CHECK(syncs.synced(folder));
        }
    }
    const test::SyncRecorder syncs;
    auto store = open_directory_store(root);
    REQUIRE(store);
    // Whoever made them may have died before they were durable.
    CHECK(syncs.synced(dir.path() / "a"));
    REQUIRE((*store)->put("x/y/object", as_bytes("bytes")));
    CHECK(syncs.synced(root / "temporary" / "1"));
    for (const char* folder : {"objects", "objects/x", "objects/x/y"}) {
        CAPTURE(folder);
        CHECK(syncs.synced(root / folder));
    }
}

TEST_CASE("killed at any step of a put, the object is there whole or not at all") {
    for (const char* step :
         {"store.temp_written", "store.temp_synced", "store.linked", "store.put"}) {
        CAPTURE(step);
        test::TempDir dir;
        const Bytes bytes(300000, std::byte{7});
        const pid_t child = ::fork();
        if (child == 0) {
            auto store = open_directory_store(dir.path());
            arm_crash_point(step);
            if (store) (void)(*store)->put("a/b", bytes);
            ::_exit(1);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        auto store = open_directory_store(dir.path());
        REQUIRE(store);
        const bool named = std::string(step) == "store.linked" || std::string(step) == "store.put";
        auto info = (*store)->stat("a/b");
        CHECK(bool(info) == named);
        if (info) CHECK(*(*store)->get("a/b", 0, info->bytes) == bytes);
        CHECK(files_below(dir.path() / "temporary") == 0);
        auto again = (*store)->put("a/b", bytes);
        REQUIRE(again);
        CHECK((*again == store::PutOutcome::existed) == named);
    }
}

TEST_CASE("a full disk refuses a put with ENOSPC, leaves nothing behind and recovers") {
    test::SmallFilesystem small(1 << 20);
    if (!small.mounted()) {
        std::puts("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    auto store = open_directory_store(small.path());
    REQUIRE(store);
    REQUIRE((*store)->put("kept", Bytes(100000)));
    auto refused = (*store)->put("large", Bytes(2 << 20));
    REQUIRE_FALSE(refused);
    CHECK(refused.error().sys == ENOSPC);
    CHECK(refused.error().kind == ErrorKind::retry);
    CHECK_FALSE((*store)->stat("large"));
    CHECK(files_below(small.path() / "temporary") == 0);
    REQUIRE((*store)->put("fits", Bytes(600000)));
    REQUIRE_FALSE((*store)->put("next", Bytes(600000)));
    REQUIRE((*store)->remove("fits"));
    CHECK((*store)->put("next", Bytes(600000)));
    CHECK((*store)->get("kept", 0, 100000));
}

TEST_CASE("an object of any length, wherever it lies in memory, is stored byte for byte") {
    test::TempDir on_disk;
    test::SmallFilesystem small(16 << 20);  // a tmpfs, which may know no direct writes
    for (const auto& path : {on_disk.path(), small.path()}) {
        auto store = open_directory_store(path / "store");
        REQUIRE(store);
        Bytes bytes((2 << 20) + 8192);
        uint32_t x = 1;
        for (std::byte& byte : bytes) byte = std::byte((x = x * 1664525 + 1013904223) >> 24);
        int number = 0;
        for (size_t length : {(256u << 10) - 1, 256u << 10, (256u << 10) + 1, (1u << 20) + 4095,
                              1u << 20, (2u << 20) + 513}) {
            for (size_t begin : {0, 16, 512, 4096}) {
                const ByteView object = ByteView(bytes).subspan(begin, length);
                const std::string name = fmt::format("object-{}", number++);
                INFO(path << ": " << length << " bytes from byte " << begin << " of a page");
                REQUIRE((*store)->put(name, object));
                CHECK((*store)->stat(name)->bytes == length);
                auto back = (*store)->get(name, 0, length);
                REQUIRE(back);
                CHECK(std::equal(back->begin(), back->end(), object.begin(), object.end()));
                REQUIRE((*store)->remove(name));
            }
        }
    }
}

TEST_CASE("a store that turned read-only refuses and loses nothing") {
    test::SmallFilesystem small(1 << 20);
    if (!small.mounted()) {
        std::puts("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    auto store = open_directory_store(small.path());
    REQUIRE(store);
    REQUIRE((*store)->put("kept", as_bytes("x")));
    // The lock file is open for writing, so the mount itself cannot turn; its folders can.
    REQUIRE(::mount(small.path().c_str(), small.path().c_str(), nullptr, MS_BIND, nullptr) == 0);
    REQUIRE(::mount("none", small.path().c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY,
                    nullptr) == 0);
    auto refused = (*store)->put("new", as_bytes("y"));
    CHECK_FALSE(refused);
    CHECK((*store)->get("kept", 0, 1));
    REQUIRE(::umount(small.path().c_str()) == 0);
    CHECK((*store)->put("new", as_bytes("y")));
}
