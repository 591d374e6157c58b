// SPDX-License-Identifier: Apache-2.0
#include "user/base/file.h"

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;

TEST_CASE("a replaced file holds the new bytes and leaves no temporary file") {
    test::TempDir dir;
    const auto path = dir.path() / "f";
    REQUIRE(replace_file(path, as_bytes("old")));
    REQUIRE(replace_file(path, as_bytes("newer")));
    auto bytes = read_file(path, 100);
    REQUIRE(bytes);
    CHECK(as_text(*bytes) == "newer");
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("a short file is reported as corrupt, with its path") {
    test::TempDir dir;
    const auto path = dir.path() / "short";
    REQUIRE(replace_file(path, as_bytes("abc")));
    auto fd = open_file(path, O_RDONLY);
    REQUIRE(fd);
    Bytes to(10);
    auto read = read_exact(fd->get(), 0, to, path.native());
    REQUIRE_FALSE(read);
    CHECK(read.error().kind == ErrorKind::corrupt);
    CHECK(read.error().message.find("short") != std::string::npos);
}

TEST_CASE("a file over the limit is refused, a missing one names itself") {
    test::TempDir dir;
    REQUIRE(replace_file(dir.path() / "big", as_bytes("0123456789")));
    CHECK_FALSE(read_file(dir.path() / "big", 9));
    auto missing = read_file(dir.path() / "missing", 9);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().sys == ENOENT);
    CHECK(missing.error().message.find("missing") != std::string::npos);
}
