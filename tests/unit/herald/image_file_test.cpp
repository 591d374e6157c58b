// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/image_file.h"

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::cli;

namespace {

size_t files_in(const std::filesystem::path& dir) {
    return size_t(std::distance(std::filesystem::directory_iterator(dir), {}));
}

}  // namespace

TEST_CASE("an image appears under its name only when it is committed") {
    const test::TempDir dir;
    const auto path = dir.path() / "disk.img";
    {
        auto image = ImageFile::open(path, 4096, false);
        REQUIRE(image);
        CHECK_FALSE(std::filesystem::exists(path));
        REQUIRE(write_exact(image->fd(), 0, as_bytes("hello"), "image"));
        REQUIRE(image->commit());
    }
    CHECK(std::filesystem::file_size(path) == 4096);
    CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("an image that is dropped leaves nothing") {
    const test::TempDir dir;
    { REQUIRE(ImageFile::open(dir.path() / "disk.img", 4096, false)); }
    CHECK(files_in(dir.path()) == 0);
}

TEST_CASE("an existing file is kept unless forced, and until the new one is complete") {
    const test::TempDir dir;
    const auto path = dir.path() / "disk.img";
    REQUIRE(replace_file(path, as_bytes("old")));
    const auto refused = ImageFile::open(path, 4096, false);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().sys == EEXIST);
    { REQUIRE(ImageFile::open(path, 4096, true)); }
    CHECK(std::filesystem::file_size(path) == 3);
    auto image = ImageFile::open(path, 4096, true);
    REQUIRE(image);
    REQUIRE(image->commit());
    CHECK(std::filesystem::file_size(path) == 4096);
}

TEST_CASE("a file that appears while an image is written is not overwritten") {
    const test::TempDir dir;
    const auto path = dir.path() / "disk.img";
    {
        auto image = ImageFile::open(path, 4096, false);
        REQUIRE(image);
        REQUIRE(replace_file(path, as_bytes("other")));
        const auto committed = image->commit();
        REQUIRE_FALSE(committed);
        CHECK(committed.error().sys == EEXIST);
    }
    CHECK(std::filesystem::file_size(path) == 5);
    CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("a directory and a place that is not there are refused") {
    const test::TempDir dir;
    CHECK_FALSE(ImageFile::check(dir.path(), true));
    CHECK_FALSE(ImageFile::check(dir.path() / "absent" / "disk.img", false));
    CHECK_FALSE(ImageFile::check("/dev/no-such-device-here", false));
    CHECK_FALSE(ImageFile::check("/dev/null", true));
}

TEST_CASE("the digest of an image is that of exactly its bytes") {
    const test::TempDir dir;
    const auto path = dir.path() / "file";
    REQUIRE(replace_file(path, as_bytes("abcdef")));
    const auto fd = open_file(path, O_RDONLY);
    REQUIRE(fd);
    CHECK(sha256_of(fd->get(), 3, "file").value() == to_hex(sha256(as_bytes("abc"))));
    CHECK_FALSE(sha256_of(fd->get(), 7, "file"));
}
