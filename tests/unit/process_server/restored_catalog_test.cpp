// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/restored_catalog.h"

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/process_server/garbage.h"
#include "user/process_server/upload.h"
#include "user/vault/memory_catalog.h"

using namespace herald;
using namespace herald::process_server;

namespace {

// A store with a stream of one disk, and the catalog at any of its moments.
struct Restored {
    test::TempDir dir;
    std::unique_ptr<store::ObjectStore> store;
    vault::MemoryCatalog catalog;
    Uuid disk = Uuid::random();
    Uuid machine = Uuid::random();
    Uuid head;
    uint64_t position = 0;

    Restored() {
        auto opened = store::open_directory_store(dir.path() / "store");
        REQUIRE(opened);
        store = std::move(*opened);
        session();
        for (int i = 0; i < 3; ++i) commit();
    }
    void session() {
        wire::SessionRequest request;
        request.session = Uuid::random();
        REQUIRE(catalog.grant(disk, machine, request));
    }
    void commit() {
        vault::SegmentRow row;
        row.epoch = (*catalog.disk(disk))->epoch;
        row.first_position = row.last_position = ++position;
        row.segment = Uuid::random();
        row.previous_segment = std::exchange(head, row.segment);
        row.object = object_name(disk, row.epoch, row.first_position, row.segment);
        REQUIRE(store->put(row.object, as_bytes("a segment")));
        vault::Commit commit{disk, row, {}, nullptr, {}};
        REQUIRE(catalog.commit({&commit, 1})->front() == vault::CatalogOutcome::done);
    }
    void go_back(vault::MemoryCatalog::State state) {
        catalog = vault::MemoryCatalog(std::move(state));
    }
    size_t objects() {
        size_t count = 0;
        REQUIRE(store->list("", [&](const store::ObjectInfo&) -> Result<void> {
            ++count;
            return {};
        }));
        return count;
    }
};

}  // namespace

TEST_CASE_METHOD(Restored, "a catalog from a backup gets epochs above all that were granted") {
    const auto backup = catalog.state();
    session();
    for (unsigned i = 0; i < HERALD_GARBAGE_PER_DISK_MAX + 4; ++i) commit();
    go_back(backup);
    REQUIRE_FALSE(collect_garbage(*store, catalog));
    auto restored = adopt_restored_catalog(*store, catalog, Uuid::random(), 1'700'000'000);
    REQUIRE(restored);
    CHECK(restored->disks == 1);
    CHECK(restored->removed == HERALD_GARBAGE_PER_DISK_MAX + 4);
    CHECK((*catalog.disk(disk))->epoch == 1'700'000'000);
    CHECK(objects() == 3);
    CHECK(*collect_garbage(*store, catalog) == 0);
}

TEST_CASE_METHOD(Restored, "a clock that is wrong does not bring back an epoch of the store") {
    const auto backup = catalog.state();
    for (int i = 0; i < 5; ++i) session();
    commit();
    go_back(backup);
    REQUIRE(adopt_restored_catalog(*store, catalog, Uuid::random(), 0));
    CHECK((*catalog.disk(disk))->epoch == 7);
}

TEST_CASE_METHOD(Restored, "a catalog that is no backup of this store's is refused, nothing goes") {
    const auto own = catalog.state();
    SECTION("an empty one") { go_back({}); }
    SECTION("one that names a segment the store does not have") {
        head = (*catalog.disk(disk))->head_segment;
        commit();
        REQUIRE(store->remove((*catalog.segment(disk, position))->object));
    }
    const size_t before = objects();
    auto restored = adopt_restored_catalog(*store, catalog, Uuid::random(), 1'700'000'000);
    REQUIRE_FALSE(restored);
    CHECK(restored.error().kind == ErrorKind::operator_needed);
    CHECK(objects() == before);
    if (!catalog.state().empty()) CHECK((*catalog.disk(disk))->epoch == 1);
}
