// SPDX-License-Identifier: Apache-2.0
// libherald-hrl as another program has it: linked to the shared library and nothing else of ours.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "herald/hrl.hpp"
#include "tests/catch.hpp"
#include "tests/shell.h"
#include "tests/temp_dir.h"

using herald::HrlReader;

namespace {

const std::string kGolden = HERALD_SOURCE_DIR "/tests/golden/hrl/";

std::string output_of(const std::string& command) {
    const herald::test::Run run = herald::test::run_shell(command);
    return run.output + "status " + std::to_string(run.status);
}

}  // namespace

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
