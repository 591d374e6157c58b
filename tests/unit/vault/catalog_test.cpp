// SPDX-License-Identifier: Apache-2.0
#include "user/vault/catalog.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "tests/conformance/catalog_suite.h"
#include "tests/sync_recorder.h"
#include "tests/temp_dir.h"
#include "user/base/crash_point.h"
#include "user/vault/memory_catalog.h"
#include "user/vault/sqlite.h"

using namespace herald;

TEST_CASE("SQLite keeps the contract of a catalog") {
    test::TempDir dir;
    std::unique_ptr<vault::Catalog> catalog;
    test::catalog_suite([&]() -> vault::Catalog& {
        catalog.reset();
        auto opened = vault::open_sqlite_catalog(dir.path() / "catalog.sqlite");
        if (!opened) FAIL(opened.error().message);
        catalog = std::move(*opened);
        return *catalog;
    });
}

TEST_CASE("memory keeps the contract of a catalog") {
    std::unique_ptr<vault::MemoryCatalog> catalog = std::make_unique<vault::MemoryCatalog>();
    test::catalog_suite([&]() -> vault::Catalog& {
        catalog = std::make_unique<vault::MemoryCatalog>(catalog->state());
        return *catalog;
    });
}

TEST_CASE("a catalog of a newer schema is refused, by both numbers") {
    test::TempDir dir;
    const auto path = dir.path() / "catalog.sqlite";
    REQUIRE(vault::open_sqlite_catalog(path));
    {
        auto database = vault::Database::open(path);
        REQUIRE(database);
        REQUIRE(database->execute("PRAGMA user_version = 42"));
    }
    auto refused = vault::open_sqlite_catalog(path);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("42") != std::string::npos);
    CHECK(refused.error().message.find("up to 1") != std::string::npos);
}

TEST_CASE("a file that is no catalog is refused with its name") {
    test::TempDir dir;
    const auto path = dir.path() / "catalog.sqlite";
    std::ofstream(path) << std::string(10000, 'x');
    auto refused = vault::open_sqlite_catalog(path);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::corrupt);
    CHECK(refused.error().message.find(path.native()) != std::string::npos);
}

TEST_CASE("killed on either side of a commit, all of it is there or nothing") {
    for (const char* step : {"catalog.before_commit", "catalog.after_commit"}) {
        CAPTURE(step);
        test::TempDir dir;
        const auto path = dir.path() / "catalog.sqlite";
        const Uuid disk = Uuid::random();
        const Uuid machine = Uuid::random();
        const auto row = test::segment_row(1, 1, 3, {});
        const std::vector<vault::TagVerdict> tags{test::tag_at(2)};
        const std::vector<vault::DigestRun> digests{{0, 300, row.digest}};
        const vault::StreamState state;
        const pid_t child = ::fork();
        if (child == 0) {
            auto catalog = vault::open_sqlite_catalog(path);
            if (!catalog) ::_exit(1);
            (void)(*catalog)->grant(disk, machine, test::session_request(Uuid::random()));
            arm_crash_point(step);
            const vault::Commit commit{disk, row, tags, &state, digests};
            (void)(*catalog)->commit({&commit, 1});
            ::_exit(1);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        const bool committed = std::string(step) == "catalog.after_commit";
        auto catalog = vault::open_sqlite_catalog(path);
        REQUIRE(catalog);
        CHECK((*(*catalog)->disk(disk))->head == (committed ? 3 : 0));
        CHECK(bool(*(*catalog)->segment(disk, 1)) == committed);
        CHECK((*catalog)->points(disk)->size() == (committed ? 1 : 0));
        CHECK((*catalog)->digests(disk, 299, 1)->front().is_unknown() == !committed);
    }
}

TEST_CASE("every name on the way to a new catalog is synced, and again at the next opening") {
    test::TempDir dir;
    const auto folder = dir.path() / "a" / "b";
    const auto file = folder / "catalog.sqlite";
    {
        const test::SyncRecorder syncs;
        REQUIRE(vault::open_sqlite_catalog(file));
        for (const auto& above : {dir.path(), dir.path() / "a", folder}) {
            CAPTURE(above);
            CHECK(syncs.synced(above));
        }
    }
    // Whoever made the file may have died before its name was durable. Nothing is written now, so
    // that no sync of SQLite's own stands in for ours.
    const test::SyncRecorder syncs;
    REQUIRE(vault::open_sqlite_catalog(file));
    CHECK(syncs.synced(folder));
}
