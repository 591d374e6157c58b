// SPDX-License-Identifier: Apache-2.0
// Known answers of the standards that sealing is made of.
#include "tests/catch.hpp"
#include "tests/unit/seal/hex.h"
#include "user/base/digest.h"
#include "user/seal/gcm.h"
#include "user/seal/primitives.h"

using namespace herald;
using namespace herald::seal;
using herald::seal::test::from_hex;

TEST_CASE("HKDF gives the answers of RFC 5869, test cases 1 and 3") {
    const Bytes key(22, std::byte{0x0b});
    CHECK(to_hex(hkdf_sha256(key, from_hex("000102030405060708090a0b0c"),
                             from_hex("f0f1f2f3f4f5f6f7f8f9"), 42)
                     .view()) ==
          "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    CHECK(to_hex(hkdf_sha256(key, {}, {}, 42).view()) ==
          "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST_CASE("scrypt gives the answers of RFC 7914, section 12") {
    auto empty = scrypt({}, {}, {16, 1, 1}, 64);
    REQUIRE(empty);
    CHECK(to_hex(empty->view()) ==
          "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
          "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906");
    auto salted = scrypt(as_bytes("password"), as_bytes("NaCl"), {1024, 8, 16}, 64);
    REQUIRE(salted);
    CHECK(to_hex(salted->view()) ==
          "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
          "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640");
}

TEST_CASE("key wrap gives the answer of RFC 3394, section 4.6, and unwraps only that") {
    const Bytes key = from_hex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F");
    const Bytes plain =
        from_hex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F");
    Bytes wrapped = wrap_key(key, plain);
    CHECK(to_hex(wrapped) ==
          "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21");
    auto unwrapped = unwrap_key(key, wrapped);
    REQUIRE(unwrapped);
    CHECK(to_hex(unwrapped->view()) == to_hex(plain));
    for (std::byte& b : wrapped) {
        b ^= std::byte{0x10};
        CHECK_FALSE(unwrap_key(key, wrapped));
        b ^= std::byte{0x10};
    }
    CHECK_FALSE(unwrap_key(plain, wrapped));
    CHECK_FALSE(unwrap_key(key, ByteView(wrapped).first(32)));
    CHECK_FALSE(unwrap_key(key, {}));
}

TEST_CASE("AES-256-GCM gives the answers of its specification, test cases 13, 14 and 16") {
    struct Known {
        const char *key, *nonce, *associated, *plain, *sealed, *tag;
    };
    const Known known[] = {
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
        {"0000000000000000000000000000000000000000000000000000000000000000",
         "000000000000000000000000", "", "00000000000000000000000000000000",
         "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
        {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
         "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
         "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
         "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
         "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
         "76fc6ece0f4e1768cddf8853bb2d551b"},
    };
    for (const Known& k : known) {
        Nonce nonce;
        const Bytes nonce_bytes = from_hex(k.nonce);
        std::copy(nonce_bytes.begin(), nonce_bytes.end(), nonce.begin());
        const Bytes associated = from_hex(k.associated);
        const std::vector<ByteView> parts{associated};
        const Bytes plain = from_hex(k.plain);
        Bytes sealed(plain.size());
        Gcm seals(from_hex(k.key), true);
        seals.begin(nonce, parts);
        seals.update(plain, sealed.data());
        REQUIRE(seals.finish());
        CHECK(to_hex(sealed) == k.sealed);
        CHECK(to_hex(seals.tag()) == k.tag);

        Gcm opens(from_hex(k.key), false);
        const auto opened = [&](AuthTag tag) {
            Bytes back(sealed.size());
            opens.begin(nonce, parts);
            opens.update(sealed, back.data());
            opens.expect(tag);
            return opens.finish() && back == plain;
        };
        AuthTag tag = seals.tag();
        CHECK(opened(tag));
        tag[3] ^= std::byte{1};
        CHECK_FALSE(opened(tag));
    }
}
