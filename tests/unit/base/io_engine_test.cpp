// SPDX-License-Identifier: Apache-2.0
// One suite, three engines: they must not be told apart by what a caller sees.
#include "user/base/io_engine.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <random>

#include "herald/limits.h"
#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/base/file.h"
#include "user/base/io_engines.h"

using namespace herald;

namespace {

uint64_t seed_of_run() {
    const char* given = std::getenv("HERALD_SEED");
    const uint64_t seed = given ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "seed " << seed << " (HERALD_SEED)\n";
    return seed;
}

// Memory that O_DIRECT accepts.
struct Aligned {
    explicit Aligned(size_t bytes) : size(bytes) {
        data = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
        std::memset(data, 0, bytes);
    }
    Aligned(const Aligned&) = delete;
    Aligned& operator=(const Aligned&) = delete;
    ~Aligned() { std::free(data); }
    ByteSpan slice(size_t at, size_t bytes) { return {data + at, bytes}; }
    size_t size;
    std::byte* data;
};

std::unique_ptr<IoEngine> engine_for(IoEngineKind kind, int fd, size_t depth) {
    auto engine = make_io_engine(kind, fd, depth);
    if (!engine) FAIL(to_string(kind) << ": " << engine.error().message);
    CHECK((*engine)->kind() == kind);
    CHECK((*engine)->depth() == depth);
    return std::move(*engine);
}

// Sends all requests and returns each one's result by cookie; checks "exactly once" on the way.
std::map<uint64_t, int32_t> run(IoEngine& engine, std::span<const IoRequest> requests) {
    std::map<uint64_t, int32_t> results;
    std::vector<IoCompletion> done(7);
    while (!requests.empty() || engine.in_flight() > 0) {
        auto taken = engine.submit(requests);
        REQUIRE(taken);
        requests = requests.subspan(*taken);
        REQUIRE(engine.in_flight() <= engine.depth());
        REQUIRE(engine.in_flight() > 0);
        auto got = engine.wait(done, 1);
        REQUIRE(got);
        REQUIRE(*got >= 1);
        for (size_t i = 0; i < *got; ++i) {
            REQUIRE(results.emplace(done[i].cookie, done[i].result).second);
        }
    }
    return results;
}

const IoEngineKind kKinds[] = {IoEngineKind::io_uring, IoEngineKind::libaio, IoEngineKind::pread};

}  // namespace

TEST_CASE("random writes and reads at depth 64 transfer exactly the bytes asked for") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    const bool direct = GENERATE(false, true);
    INFO(to_string(kind) << (direct ? " O_DIRECT" : " buffered"));
    constexpr size_t kBlock = 4096, kBlocks = 1024;
    test::TempDir dir;
    auto fd = open_file(dir.path() / "data", O_RDWR | O_CREAT | (direct ? O_DIRECT : 0));
    REQUIRE(fd);
    REQUIRE(::ftruncate(fd->get(), kBlock * kBlocks) == 0);
    auto engine = engine_for(kind, fd->get(), 64);

    std::mt19937_64 random(seed_of_run());
    std::vector<size_t> order(kBlocks);
    for (size_t i = 0; i < kBlocks; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);

    Aligned written(kBlock * kBlocks), read(kBlock * kBlocks);
    for (size_t i = 0; i < written.size; i += 8) store_le<uint64_t>(written.data + i, random());

    // Blocks in random order through whatever part of the buffer: 16 times more than the depth.
    std::vector<IoRequest> writes, reads;
    for (size_t block : order) {
        writes.push_back(
            {IoOp::write, block * kBlock, written.slice(block * kBlock, kBlock), block});
    }
    for (const auto& [cookie, result] : run(*engine, writes)) REQUIRE(result == int32_t(kBlock));
    std::shuffle(order.begin(), order.end(), random);
    for (size_t block : order) {
        reads.push_back({IoOp::read, block * kBlock, read.slice(block * kBlock, kBlock), ~block});
    }
    auto results = run(*engine, reads);
    REQUIRE(results.size() == kBlocks);
    for (const auto& [cookie, result] : results) REQUIRE(result == int32_t(kBlock));
    REQUIRE(std::memcmp(written.data, read.data, written.size) == 0);

    // An independent reader agrees.
    auto bytes = read_file(dir.path() / "data", kBlock * kBlocks);
    REQUIRE(bytes);
    REQUIRE(std::memcmp(written.data, bytes->data(), written.size) == 0);
}

TEST_CASE("a read over the end of the file is short, one beyond it is empty") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    const bool direct = GENERATE(false, true);
    INFO(to_string(kind) << (direct ? " O_DIRECT" : " buffered"));
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "data", Bytes(5000)));
    auto fd = open_file(dir.path() / "data", O_RDONLY | (direct ? O_DIRECT : 0));
    REQUIRE(fd);
    auto engine = engine_for(kind, fd->get(), 4);
    Aligned to(8192 * 2);
    const IoRequest requests[] = {{IoOp::read, 4096, to.slice(0, 8192), 1},
                                  {IoOp::read, 8192, to.slice(8192, 4096), 2}};
    auto results = run(*engine, requests);
    CHECK(results[1] == 5000 - 4096);
    CHECK(results[2] == 0);
}

TEST_CASE("a wait with a bound ends without the read that hangs, and the read comes later") {
    // A pipe: a read of a file does not hang. (libaio and pread read it in submit().)
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd out(ends[0]), in(ends[1]);
    auto engine = engine_for(IoEngineKind::io_uring, out.get(), 4);
    Aligned memory(4096);
    IoRequest request;
    request.buffer = memory.slice(0, 1);
    request.cookie = 7;
    REQUIRE(engine->submit({&request, 1}));
    IoCompletion done[4];
    using Clock = IoEngine::Clock;
    const auto began = Clock::now();
    auto got = engine->wait_until(done, 1, began + std::chrono::milliseconds(100));
    REQUIRE(got);
    REQUIRE(*got == 0);
    REQUIRE(Clock::now() - began >= std::chrono::milliseconds(100));
    REQUIRE(Clock::now() - began < std::chrono::seconds(5));
    REQUIRE(engine->in_flight() == 1);
    REQUIRE(::write(in.get(), "x", 1) == 1);
    got = engine->wait_until(done, 1, Clock::now() + std::chrono::seconds(10));
    REQUIRE(got);
    REQUIRE(*got == 1);
    REQUIRE(done[0].cookie == 7);
    REQUIRE(done[0].result == 1);
}

TEST_CASE("a bounded wait returns what is done, in every engine") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    const test::TempDir dir;
    auto file = open_file(dir.path() / "file", O_RDWR | O_CREAT);
    REQUIRE(file);
    REQUIRE(::ftruncate(file->get(), 4096) == 0);
    auto engine = engine_for(kind, file->get(), 4);
    Aligned memory(4096);
    IoRequest request;
    request.buffer = memory.slice(0, 4096);
    REQUIRE(engine->submit({&request, 1}));
    IoCompletion done[4];
    auto got = engine->wait_until(done, 1, IoEngine::Clock::now() + std::chrono::seconds(10));
    REQUIRE(got);
    REQUIRE(*got == 1);
    REQUIRE(done[0].result == 4096);
}

TEST_CASE("a request that cannot be done fails alone, with its errno") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    INFO(to_string(kind));
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "data", Bytes(8192)));
    // Read-only: the writes among the reads are refused.
    auto fd = open_file(dir.path() / "data", O_RDONLY);
    REQUIRE(fd);
    auto engine = engine_for(kind, fd->get(), 4);
    Aligned to(4096 * 9);
    std::vector<IoRequest> requests;
    for (uint64_t i = 0; i < 9; ++i) {
        requests.push_back(
            {i % 2 ? IoOp::write : IoOp::read, i % 2 * 4096, to.slice(i * 4096, 4096), i});
    }
    auto results = run(*engine, requests);
    REQUIRE(results.size() == 9);
    for (const auto& [cookie, result] : results) {
        CHECK(result == (cookie % 2 ? -EBADF : 4096));
    }
}

TEST_CASE("an address that is not ours is EFAULT, for that request only") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    INFO(to_string(kind));
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "data", Bytes(8192)));
    auto fd = open_file(dir.path() / "data", O_RDONLY);
    REQUIRE(fd);
    auto engine = engine_for(kind, fd->get(), 4);
    Aligned to(4096);
    const ByteSpan nowhere(reinterpret_cast<std::byte*>(uintptr_t{4096}), 4096);
    const IoRequest requests[] = {{IoOp::read, 0, nowhere, 1},
                                  {IoOp::read, 0, to.slice(0, 4096), 2}};
    auto results = run(*engine, requests);
    CHECK(results[1] == -EFAULT);
    CHECK(results[2] == 4096);
}

TEST_CASE("sync completes and mixes with writes") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    INFO(to_string(kind));
    test::TempDir dir;
    auto fd = open_file(dir.path() / "data", O_RDWR | O_CREAT);
    REQUIRE(fd);
    auto engine = engine_for(kind, fd->get(), 8);
    Aligned from(4096);
    std::vector<IoRequest> requests;
    for (uint64_t i = 0; i < 20; ++i) {
        if (i % 5 == 4) {
            requests.push_back({IoOp::sync, 0, {}, i});
        } else {
            requests.push_back({IoOp::write, i * 4096, from.slice(0, 4096), i});
        }
    }
    auto results = run(*engine, requests);
    REQUIRE(results.size() == 20);
    for (const auto& [cookie, result] : results) CHECK(result == (cookie % 5 == 4 ? 0 : 4096));
}

TEST_CASE("an engine takes no more than its depth and waits for nothing when asked to") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    INFO(to_string(kind));
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "data", Bytes(4096)));
    auto fd = open_file(dir.path() / "data", O_RDONLY);
    REQUIRE(fd);
    auto engine = engine_for(kind, fd->get(), 3);
    std::vector<IoCompletion> done(10);
    auto none = engine->wait(done, 0);
    REQUIRE(none);
    CHECK(*none == 0);
    Aligned to(4096);
    std::vector<IoRequest> requests(5, IoRequest{IoOp::read, 0, to.slice(0, 4096), 0});
    auto taken = engine->submit(requests);
    REQUIRE(taken);
    CHECK(*taken == 3);
    CHECK(engine->in_flight() == 3);
    auto more = engine->submit(requests);
    REQUIRE(more);
    CHECK(*more == 0);
    auto all = engine->wait(done, 3);
    REQUIRE(all);
    CHECK(*all == 3);
    CHECK(engine->in_flight() == 0);
}

TEST_CASE("an engine that is destroyed with reads in flight leaves their buffers alone after") {
    const auto kind = GENERATE(from_range(std::begin(kKinds), std::end(kKinds)));
    INFO(to_string(kind));
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "data", Bytes(4 << 20, std::byte{0x5a})));
    auto fd = open_file(dir.path() / "data", O_RDONLY | O_DIRECT);
    REQUIRE(fd);
    Aligned to(4 << 20);
    std::vector<IoRequest> requests;
    for (size_t i = 0; i < 64; ++i) {
        requests.push_back({IoOp::read, i * 65536, to.slice(i * 65536, 65536), i});
    }
    {
        auto engine = engine_for(kind, fd->get(), 64);
        REQUIRE(engine->submit(requests));
    }
    std::memset(to.data, 0, to.size);
    ::usleep(20000);
    CHECK(all_zero(to.slice(0, to.size)));
}

TEST_CASE("the automatic choice is an engine that works, and it says which") {
    test::TempDir dir;
    auto fd = open_file(dir.path() / "data", O_RDWR | O_CREAT);
    REQUIRE(fd);
    auto engine = make_io_engine(IoEngineKind::automatic, fd->get(), 16);
    REQUIRE(engine);
    CHECK((*engine)->kind() != IoEngineKind::automatic);
    std::cout << "automatic chose " << to_string((*engine)->kind()) << "\n";
    CHECK_FALSE(make_io_engine(IoEngineKind::pread, fd->get(), 0));
    CHECK_FALSE(make_io_engine(IoEngineKind::pread, fd->get(), HERALD_IO_DEPTH_MAX + 1));
}

TEST_CASE("an engine's name is parsed back, another one is refused with the choices") {
    for (auto kind : {IoEngineKind::automatic, IoEngineKind::io_uring, IoEngineKind::libaio,
                      IoEngineKind::pread}) {
        auto parsed = parse_io_engine_kind(to_string(kind));
        REQUIRE(parsed);
        CHECK(*parsed == kind);
    }
    auto wrong = parse_io_engine_kind("posix");
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().message.find("libaio") != std::string::npos);
}
