// SPDX-License-Identifier: Apache-2.0
#include "tests/catch.hpp"
#include "user/base/digest.h"
#include "user/base/uuid.h"

using namespace herald;

TEST_CASE("an id survives its text form") {
    const Uuid id = Uuid::random();
    auto parsed = Uuid::parse(to_string(id));
    REQUIRE(parsed);
    CHECK(*parsed == id);
    CHECK_FALSE(Uuid::random() == id);
}

TEST_CASE("a malformed id is refused with its text") {
    for (const char* text :
         {"", "x", "00000000-0000-0000-0000-00000000000", "00000000x0000-0000-0000-000000000000",
          "0000000g-0000-0000-0000-000000000000"}) {
        auto parsed = Uuid::parse(text);
        REQUIRE_FALSE(parsed);
        CHECK(parsed.error().message.find(text) != std::string::npos);
    }
}

TEST_CASE("an id from a name is the same every time and differs by name and space") {
    const Uuid space = Uuid::random();
    CHECK(Uuid::from_name(space, "a") == Uuid::from_name(space, "a"));
    CHECK_FALSE(Uuid::from_name(space, "a") == Uuid::from_name(space, "b"));
    CHECK_FALSE(Uuid::from_name(Uuid{}, "a") == Uuid::from_name(space, "a"));
}

TEST_CASE("digests agree with published answers") {
    // FIPS 180-2 "abc"; XXH3 of nothing from the xxHash reference.
    CHECK(to_hex(sha256(as_bytes("abc"))) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(xxh3_64({}) == 0x2d06800538d394c2ull);
    CHECK(to_hex(xxh3_128({}).bytes) == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("all_zero sees one set byte anywhere") {
    Bytes bytes(4096);
    CHECK(all_zero(bytes));
    CHECK(all_zero(ByteView{}));
    for (size_t at : {0, 1, 2047, 4095}) {
        bytes[at] = std::byte{1};
        CHECK_FALSE(all_zero(bytes));
        bytes[at] = std::byte{0};
    }
}
