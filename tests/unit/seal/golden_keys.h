// SPDX-License-Identifier: Apache-2.0
// The keys of tests/golden/keys: what its files hold, written by hand so that they come out the
// same each time.
#pragma once

#include <cstdlib>

#include "tests/catch.hpp"
#include "user/base/file.h"
#include "user/seal/machine_key.h"

namespace herald::seal::test {

inline const std::filesystem::path kGoldenKeys = HERALD_SOURCE_DIR "/tests/golden/keys";
inline constexpr std::string_view kGoldenPassphrase = "correct horse battery staple";

inline Uuid golden_id(uint8_t fill) {
    Uuid id;
    id.bytes.fill(std::byte{fill});
    return id;
}

// first, first + 1, ...
inline Secret golden_bytes(uint8_t first, size_t size) {
    Secret bytes(size);
    for (std::byte& b : bytes.span()) b = std::byte(first++);
    return bytes;
}

// The key that seals the golden journals, too.
inline MachineKey golden_machine_key() {
    return {golden_id(0x11), golden_id(0x77), golden_bytes(0, kKeyBytes)};
}

// What a token holds when it opens token.key.
inline Secret golden_token_key() { return golden_bytes(0x60, kKeyBytes); }

// With HERALD_GOLDEN_WRITE=1 a file that is missing is written; one that is there never.
inline Bytes golden_file(const std::string& name, ByteView written) {
    const auto path = kGoldenKeys / name;
    if (std::getenv("HERALD_GOLDEN_WRITE") && !std::filesystem::exists(path)) {
        REQUIRE(replace_file(path, written, 0644));
    }
    INFO(name);
    auto golden = read_file(path, 4096);
    REQUIRE(golden);
    return *golden;
}

}  // namespace herald::seal::test
