// SPDX-License-Identifier: Apache-2.0
// Uuid: 128 bits that name a machine, disk, session, segment or recovery point.
// Text form: 8-4-4-4-12 lower-case hex. Byte form: the 16 bytes in the order they are printed.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "user/base/result.h"

namespace herald {

struct Uuid {
    std::array<std::byte, 16> bytes{};

    auto operator<=>(const Uuid&) const = default;
    bool is_nil() const { return *this == Uuid{}; }

    // Random (version 4), from the kernel's generator.
    static Uuid random();
    // The same name in the same space always gives the same id (version 8: SHA-256 of both).
    static Uuid from_name(const Uuid& space, std::string_view name);
    static Result<Uuid> parse(std::string_view text);
};

std::string to_string(const Uuid& id);

}  // namespace herald

template <>
struct std::hash<herald::Uuid> {
    size_t operator()(const herald::Uuid& id) const noexcept;
};
