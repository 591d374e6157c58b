// SPDX-License-Identifier: Apache-2.0
// libherald-hrl as another program has it: linked to the shared library and nothing else of ours.
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>

#include "herald/hrl.hpp"
#include "tests/catch.hpp"
#include "tests/shell.h"
#include "tests/temp_dir.h"

using herald::HrlReader;

namespace {

const std::string kGolden = HERALD_SOURCE_DIR "/tests/golden/hrl/";

// Allocations that still succeed; negative: all do. The library's are this program's.
long allocations_left = -1;

std::string output_of(const std::string& command) {
    const herald::test::Run run = herald::test::run_shell(command);
    return run.output + "status " + std::to_string(run.status);
}

}  // namespace

void* operator new(size_t bytes) {
    if (allocations_left >= 0 && allocations_left-- == 0) {
        allocations_left = 0;
        throw std::bad_alloc();
    }
    if (void* made = std::malloc(bytes ? bytes : 1)) return made;
    throw std::bad_alloc();
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept try {
    return operator new(bytes);
} catch (const std::bad_alloc&) {
    return nullptr;
}
void operator delete(void* made) noexcept { std::free(made); }
void operator delete(void* made, size_t) noexcept { std::free(made); }

TEST_CASE("the library reads the golden segment") {
    HrlReader reader((kGolden + "example.hrl").c_str());
    REQUIRE(reader);
    const HrlReader::Info info = reader.info();
    CHECK(info.machine[0] == 0x11);
    CHECK(info.first_position == 1);
    CHECK(info.last_position == 4);
    CHECK(info.is_whole == 1);
    CHECK(info.sealed_by == 0);
    HrlReader::Record record;
    size_t records = 0;
    while (reader.next(record)) {
        CHECK(record.position == ++records);
        if (record.kind == 1) CHECK(record.data_bytes == 512);
    }
    CHECK(reader.status() == HERALD_HRL_OK);
    CHECK(records == 4);
    CHECK(std::string(reader.loss()).empty());
}

TEST_CASE("the library names what it refuses, and reads what is plain without a key") {
    const std::string path = kGolden + "example_sealed.hrl";
    HrlReader locked(path.c_str());
    CHECK(locked.status() == HERALD_HRL_REFUSED);
    CHECK(std::string(locked.error()).find("give the key") != std::string::npos);
    HrlReader::Record record;
    CHECK_FALSE(locked.next(record));
    HrlReader::Options options = HrlReader::options();
    options.without_key = 1;
    HrlReader blind(path.c_str(), &options);
    REQUIRE(blind);
    size_t sealed = 0;
    while (blind.next(record)) {
        sealed += size_t(record.data_is_sealed);
        if (record.data_is_sealed) CHECK(record.data == nullptr);
    }
    CHECK(sealed == 1);
    options.size = offsetof(HrlReader::Options, without_key);  // an older caller's struct
    CHECK_FALSE(HrlReader(path.c_str(), &options));
    CHECK(HrlReader("/no/such/file").status() == HERALD_HRL_REFUSED);
    CHECK(herald_hrl_open(nullptr, nullptr, nullptr) == HERALD_HRL_REFUSED);
    CHECK(herald_hrl_next(nullptr, nullptr) == HERALD_HRL_REFUSED);
    herald_hrl_close(nullptr);
}

TEST_CASE("the library says what a torn file lost") {
    herald::test::TempDir dir;
    const auto path = dir.path() / "torn.hrl";
    std::filesystem::copy_file(kGolden + "example.hrl", path);
    std::filesystem::resize_file(path, 1000);
    HrlReader reader(path.c_str());
    REQUIRE(reader);
    HrlReader::Record record;
    size_t records = 0;
    while (reader.next(record)) ++records;
    CHECK(records == 3);
    CHECK(std::string(reader.loss()).find("its last whole record is 3") != std::string::npos);
    CHECK(reader.info().is_whole == 0);
}

TEST_CASE("the example program lists a segment, whole or torn") {
    const std::string listed = output_of(HERALD_HRL_LIST " " + kGolden + "example.hrl 2>&1");
    CHECK(listed.find("3 kind 1 offset 4096 length 512\n") != std::string::npos);
    CHECK(listed.ends_with("status 0"));
    CHECK(output_of(HERALD_HRL_LIST " /dev/null 2>&1").ends_with("status 1"));
    CHECK(output_of(HERALD_HRL_LIST " 2>&1").ends_with("status 2"));
    std::ifstream example(HERALD_SOURCE_DIR "/docs/examples/hrl_list.c");
    CHECK(std::count(std::istreambuf_iterator<char>(example), {}, '\n') <= 35);
}

TEST_CASE("the library exports its own functions and nothing else") {
    const std::string symbols = output_of("nm -D --defined-only " HERALD_HRL_LIBRARY
                                          " | awk '$2 == \"T\" || $2 == \"W\" {print $3}' | sort");
    CHECK(symbols ==
          "herald_hrl_close@@HERALD_HRL_1\nherald_hrl_error@@HERALD_HRL_1\nherald_hrl_get_info@@"
          "HERALD_HRL_1\nherald_hrl_loss@@HERALD_HRL_1\n"
          "herald_hrl_next@@HERALD_HRL_1\nherald_hrl_open@@HERALD_HRL_1\nstatus 0");
}

TEST_CASE("the library says of a file what its header says") {
    HrlReader plain((kGolden + "example.hrl").c_str());
    REQUIRE(plain);
    HrlReader::Info info = plain.info();
    CHECK(info.contents == 0);
    CHECK(info.record_order == 1);
    CHECK(info.granule_log2 == 0);
    CHECK(info.block_bytes == 512);
    HrlReader::Options options = HrlReader::options();
    options.layers = 1;
    HrlReader layer((kGolden + "example_by_block.hrl").c_str(), &options);
    REQUIRE(layer);
    info = layer.info();
    CHECK(info.contents == 1);
    CHECK(info.record_order == 2);
    CHECK(info.granule_log2 == 12);
    const uint8_t none[16] = {};
    CHECK(std::memcmp(info.key_id, none, sizeof none) == 0);
    options.without_key = 1;
    HrlReader sealed((kGolden + "example_sealed.hrl").c_str(), &options);
    REQUIRE(sealed);
    CHECK(sealed.info().sealed_by == 2);
    CHECK(std::memcmp(sealed.info().key_id, none, sizeof none) != 0);
}

TEST_CASE("the library reads a Hyper-V Replica Log where it is asked to, and only there") {
    const std::string path = HERALD_SOURCE_DIR "/tests/golden/mshrl/example.hrl";
    HrlReader unasked(path.c_str());
    CHECK_FALSE(unasked);
    HrlReader::Options options = HrlReader::options();
    options.logs = 1;
    HrlReader log(path.c_str(), &options);
    INFO(log.error());
    REQUIRE(log);
    const HrlReader::Info info = log.info();
    CHECK(info.format == 2);
    CHECK(info.is_whole == 1);
    CHECK(info.first_position == 1);
    // As the program lists it, which reads it by the same reader and is tested by itself.
    std::string listed;
    HrlReader::Record record;
    uint64_t records = 0;
    while (log.next(record)) {
        CHECK(record.kind == 1);
        CHECK(record.position == ++records);
        CHECK(record.data_bytes == record.length);
        listed += std::to_string(record.position) + " kind 1 offset " +
                  std::to_string(record.offset) + " length " + std::to_string(record.length) + "\n";
    }
    CHECK(log.status() == HERALD_HRL_OK);
    CHECK(records >= 2);
    CHECK(output_of("'" HERALD_HRL_LIST "' '" + path + "'") == listed + "status 0");

    HrlReader segment((kGolden + "example.hrl").c_str(), &options);
    REQUIRE(segment);
    CHECK(segment.info().format == 3);
    options.sealed_only = 1;
    HrlReader sealed(path.c_str(), &options);
    CHECK(sealed.status() == HERALD_HRL_REFUSED);
    CHECK(std::string(sealed.error()).find("never sealed") != std::string::npos);

    // A flipped bit of the data is damage here as everywhere.
    std::ifstream in(path, std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    bytes[bytes.size() - 600] = char(bytes[bytes.size() - 600] ^ 1);
    herald::test::TempDir dir;
    std::ofstream(dir.path() / "damaged.hrl", std::ios::binary) << bytes;
    options.sealed_only = 0;
    HrlReader damaged((dir.path() / "damaged.hrl").c_str(), &options);
    uint64_t handed = 0;
    while (damaged.next(record)) handed += 1;
    CHECK((damaged.status() < 0 || !std::string(damaged.loss()).empty()));
    CHECK(handed < records);
}

TEST_CASE("the library fills as much of a struct as its caller knows, and no more") {
    HrlReader reader((kGolden + "example.hrl").c_str());
    REQUIRE(reader);
    static_assert(offsetof(herald_hrl_info, size) == 0);
    static_assert(HERALD_HRL_API_VERSION >= 2);
    // A caller that was compiled when sealed_by was the last field.
    constexpr size_t kFirst = offsetof(herald_hrl_info, sealed_by) + sizeof(int);
    static_assert(kFirst == 120, "what version 1 had stays where it is");
    struct {
        herald_hrl_info info;
        char behind[256];
    } theirs;
    std::memset(&theirs, 0x5a, sizeof theirs);
    theirs.info.size = kFirst;
    auto* raw = reinterpret_cast<const unsigned char*>(&theirs);
    herald_hrl_reader* plain = nullptr;
    REQUIRE(herald_hrl_open((kGolden + "example.hrl").c_str(), nullptr, &plain) == HERALD_HRL_OK);
    CHECK(herald_hrl_get_info(plain, &theirs.info) == HERALD_HRL_OK);
    CHECK(theirs.info.size == kFirst);
    CHECK(theirs.info.last_position == 4);
    for (size_t i = kFirst; i < sizeof theirs; ++i) REQUIRE(raw[i] == 0x5a);
    // One that is newer than the library: what the library does not know is zero.
    std::memset(&theirs, 0x5a, sizeof theirs);
    theirs.info.size = sizeof theirs;
    CHECK(herald_hrl_get_info(plain, &theirs.info) == HERALD_HRL_OK);
    CHECK(theirs.info.size == sizeof theirs);
    CHECK(theirs.info.block_bytes == 512);
    for (const char c : theirs.behind) REQUIRE(c == 0);
    herald_hrl_close(plain);
}

TEST_CASE("the library throws nothing when memory is short, wherever that is") {
    const std::string path = kGolden + "example.hrl";
    const herald_hrl_options options = HrlReader::options();
    bool done = false;
    long needed = 0;
    for (; !done && needed < 10'000; ++needed) {
        herald_hrl_reader* reader = nullptr;
        herald_hrl_record record;
        std::memset(&record, 0, sizeof record);
        record.size = sizeof record;
        herald_hrl_info info;
        std::memset(&info, 0, sizeof info);
        info.size = sizeof info;
        bool threw = false;
        allocations_left = needed;
        int status = HERALD_HRL_OK;
        const char* error = "";
        try {
            status = herald_hrl_open(path.c_str(), &options, &reader);
            if (status >= 0) status = herald_hrl_get_info(reader, &info);
            while (status >= 0 &&
                   (status = herald_hrl_next(reader, &record)) == HERALD_HRL_RECORD) {
            }
            error = herald_hrl_error(reader);
        } catch (...) {
            threw = true;
        }
        allocations_left = -1;
        INFO("allocation " << needed << ": status " << status << ", " << error);
        REQUIRE_FALSE(threw);
        done = status == HERALD_HRL_OK;
        if (!done) {
            REQUIRE(status == HERALD_HRL_TROUBLE);
            REQUIRE(*error != '\0');
        }
        herald_hrl_close(reader);
    }
    CHECK(done);
    CHECK(needed > 3);
}

TEST_CASE("the library that was installed builds the example with pkg-config, wherever it lies") {
    herald::test::TempDir dir;
    const std::string prefix = (dir.path() / "here").native();
    const std::string moved = (dir.path() / "there").native();
    const std::string installed = output_of("cmake --install " HERALD_BUILD_DIR " --prefix " +
                                            prefix + " --component hrl_library 2>&1");
    INFO(installed);
    REQUIRE(installed.ends_with("status 0"));
    const auto built = [&](const std::string& at) {
        return output_of("set -e; cd " + dir.path().native() +
                         "; export PKG_CONFIG_PATH=$(dirname $(find " + at +
                         " -name herald-hrl.pc)); rm -f hrl_list;" + HERALD_C_COMPILER +
                         " -Wall -Wextra -Werror " HERALD_SANITIZE_FLAG " " HERALD_SOURCE_DIR
                         "/docs/examples/hrl_list.c $(pkg-config --cflags --libs herald-hrl)"
                         " -o hrl_list 2>&1; export LD_LIBRARY_PATH=$(pkg-config --variable=libdir "
                         "herald-hrl); ./hrl_list " +
                         kGolden + "example.hrl 2>&1");
    };
    const std::string listed = built(prefix);
    CHECK(listed.find("3 kind 1 offset 4096 length 512\n") != std::string::npos);
    CHECK(listed.ends_with("status 0"));
    std::filesystem::rename(prefix, moved);
    const std::string again = built(moved);
    INFO(again);
    CHECK(again == listed);
}
