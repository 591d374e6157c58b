// SPDX-License-Identifier: Apache-2.0
// Bytes from hex, for known answers; blanks are skipped.
#pragma once

#include <cctype>
#include <string>
#include <string_view>

#include "user/base/bytes.h"

namespace herald::seal::test {

inline Bytes from_hex(std::string_view text) {
    Bytes bytes;
    std::string digits;
    for (const char c : text) {
        if (std::isxdigit(static_cast<unsigned char>(c))) digits.push_back(c);
    }
    for (size_t i = 0; i + 1 < digits.size(); i += 2) {
        bytes.push_back(std::byte(std::stoul(digits.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

}  // namespace herald::seal::test
