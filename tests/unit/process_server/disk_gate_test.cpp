// SPDX-License-Identifier: Apache-2.0
// What becomes of each PUT when store or catalog fail in between: a store that can be held back, a
// catalog that refuses chosen positions.
#include "user/process_server/disk_gate.h"

#include <cerrno>
#include <future>

#include "tests/stream_builder.h"
#include "tests/temp_dir.h"
#include "user/process_server/responses.h"
#include "user/vault/memory_catalog.h"

using namespace herald;
using process_server::OfferVerdict;

namespace {

constexpr uint64_t kDisk = 4 * HERALD_BLOCK_BYTES;

class TroubledCatalog : public vault::MemoryCatalog {
  public:
    Result<std::vector<vault::CatalogOutcome>> commit(
        std::span<const vault::Commit> commits) override {
        for (const auto& commit : commits) {
            if (commit.segment.first_position == trouble_at) return tl::unexpected(trouble);
        }
        return MemoryCatalog::commit(commits);
    }
    uint64_t trouble_at = 0;
    Error trouble{ErrorKind::retry, "catalog: no space", ENOSPC};
};

class SlowStore : public store::ObjectStore {
  public:
    explicit SlowStore(store::ObjectStore& below) : below_(below) {}
    Result<store::PutOutcome> put(const std::string& name, ByteView bytes) override {
        entered.set_value();
        go_on.get_future().wait();
        return below_.put(name, bytes);
    }
    Result<Bytes> get(const std::string& name, uint64_t offset, uint64_t length) override {
        return below_.get(name, offset, length);
    }
    Result<store::ObjectInfo> stat(const std::string& name) override { return below_.stat(name); }
    Result<void> list(const std::string& prefix,
                      const std::function<Result<void>(const store::ObjectInfo&)>& visit) override {
        return below_.list(prefix, visit);
    }
    Result<void> remove(const std::string& name) override { return below_.remove(name); }
    Result<store::StoreSpace> space() override { return below_.space(); }

    std::promise<void> entered;
    std::promise<void> go_on;

  private:
    store::ObjectStore& below_;
};

struct Sample {
    test::TempDir dir;
    std::unique_ptr<store::ObjectStore> store = *store::open_directory_store(dir.path());
    TroubledCatalog catalog;
    process_server::CommitQueue queue{catalog};
    vault::DiskRow row;
    std::optional<process_server::DiskGate> gate;
    std::optional<test::StreamBuilder> stream;

    Sample() {
        row.disk = Uuid::random();
        row.machine = Uuid::random();
        stream.emplace(row.machine, row.disk, kDisk);
        stream->activation();
        open(*store);
    }
    void open(store::ObjectStore& on) {
        gate.emplace(row, on, catalog, queue);
        wire::SessionRequest request;
        request.session = Uuid::random();
        request.disk_bytes = kDisk;
        REQUIRE(gate->grant(request));
    }
    hrl::Segment next() { return stream->write(0, 4096, 7).segment(); }
    Result<process_server::TakeOutcome> take(const hrl::Segment& segment) {
        const process_server::UploadClaim claim{row.machine, row.disk, 1,
                                                segment.header.first_position,
                                                to_hex(xxh3_128(segment.bytes).bytes)};
        auto upload = process_server::verify_upload(claim, segment.bytes);
        if (!upload) FAIL(upload.error().message);
        return gate->take(std::move(*upload), segment.bytes);
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

TEST_CASE("a held segment that can never be stored is refused itself, not the one before it") {
    Sample sample;
    const auto one = sample.next();
    const auto before = *sample.stream;
    for (unsigned scan = 0; scan <= HERALD_SCANS_OPEN_MAX; ++scan) sample.stream->scan_begin(scan);
    const auto two = sample.stream->segment();
    CHECK(sample.take(two)->verdict == OfferVerdict::hold);
    const auto taken = sample.take(one);
    REQUIRE(taken);
    CHECK(taken->verdict == OfferVerdict::commit);
    CHECK(taken->head == one.last_position);
    CHECK(taken->refusal.empty());
    const auto refused = sample.take(two);
    REQUIRE(refused);
    CHECK(refused->refusal.find("scans are open") != std::string::npos);
    CHECK(refused->head == one.last_position);
    CHECK(sample.objects() == 1);
    // Its place is free for one that fits.
    sample.stream = before;
    const auto fits = sample.next();
    CHECK(sample.take(fits)->head == fits.last_position);
}

TEST_CASE("a held segment that the catalog has no room for is not the fault of the one before it") {
    Sample sample;
    const auto one = sample.next();
    const auto two = sample.next();
    const auto three = sample.next();
    sample.catalog.trouble_at = two.header.first_position;
    CHECK(sample.take(two)->verdict == OfferVerdict::hold);
    const auto taken = sample.take(one);
    REQUIRE(taken);
    CHECK(taken->head == one.last_position);
    const auto troubled = sample.take(two);
    REQUIRE_FALSE(troubled);
    CHECK(troubled.error().sys == ENOSPC);
    // Whoever comes behind it is held, no more and no less.
    const auto held = sample.take(three);
    REQUIRE(held);
    CHECK(held->verdict == OfferVerdict::hold);
    CHECK(held->head == one.last_position);
    sample.catalog.trouble_at = 0;
    CHECK(sample.take(two)->head == three.last_position);
    CHECK(sample.objects() == 3);
}

TEST_CASE("a held segment that does not follow what came before it diverges at once") {
    Sample sample;
    const auto other = [&] {
        test::StreamBuilder stream = *sample.stream;
        return stream.write(0, 4096, 9).segment();
    }();
    const auto one = sample.next();
    const auto two = sample.next();
    CHECK(sample.take(two)->verdict == OfferVerdict::hold);
    CHECK(sample.take(other)->head == other.last_position);
    CHECK(sample.take(two)->verdict == OfferVerdict::diverged);
    CHECK(sample.objects() == 1);
}

TEST_CASE("trouble in the catalog is never blamed on the segment") {
    Sample sample;
    const auto one = sample.next();
    sample.catalog.trouble_at = one.header.first_position;
    sample.catalog.trouble = {ErrorKind::corrupt, "catalog: malformed", 0};
    const auto taken = sample.take(one);
    REQUIRE_FALSE(taken);
    CHECK(process_server::trouble(taken.error(), 5).status == 500);
}

TEST_CASE("a segment sent again while it is being stored is answered at once, not waited for") {
    Sample sample;
    SlowStore slow(*sample.store);
    sample.gate.reset();
    sample.row.epoch = 0;
    sample.catalog = TroubledCatalog();
    sample.open(slow);
    const auto one = sample.next();
    auto first = std::async(std::launch::async, [&] { return sample.take(one); });
    slow.entered.get_future().wait();
    // It would wait for ever: only this thread lets the first go on.
    CHECK(sample.take(one)->verdict == OfferVerdict::in_progress);
    slow.go_on.set_value();
    CHECK(first.get()->head == one.last_position);
    CHECK(sample.take(one)->verdict == OfferVerdict::duplicate);
}
