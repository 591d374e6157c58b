// SPDX-License-Identifier: Apache-2.0
#include "user/base/bytes.h"

#include <random>
#include <vector>

#include "tests/catch.hpp"
#include "tests/tier.h"

using namespace herald;

TEST_CASE("bytes do what a vector of bytes does, at any length and growth") {
    const uint64_t seed = test::seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 50; ++round) {
        Bytes bytes;
        std::vector<std::byte> model;
        for (int step = 0; step < 200; ++step) {
            // Across the length from which memory is mapped by itself, now and then.
            const size_t most = random() % 40 == 0 ? 2 * kLargeMemoryBytes : 300;
            const std::vector<std::byte> more(random() % most, std::byte(random()));
            const auto at = ptrdiff_t(random() % (model.size() + 1));
            const auto to = at + ptrdiff_t(random() % (model.size() - size_t(at) + 1));
            switch (random() % 10) {
                case 0:
                    bytes.insert(bytes.begin() + at, more),
                        model.insert(model.begin() + at, more.begin(), more.end());
                    break;
                case 1:
                    bytes.append(more), model.insert(model.end(), more.begin(), more.end());
                    break;
                case 2:
                    bytes.erase(bytes.begin() + at, bytes.begin() + to),
                        model.erase(model.begin() + at, model.begin() + to);
                    break;
                case 3:
                    bytes.push_back(std::byte{7}), model.push_back(std::byte{7});
                    break;
                case 4:
                    bytes.resize(more.size(), std::byte{9}),
                        model.resize(more.size(), std::byte{9});
                    break;
                case 5:
                    bytes.reserve(more.size());
                    break;
                case 6:
                    bytes.shrink_to_fit();
                    CHECK(bytes.capacity() == bytes.size());
                    break;
                case 7:
                    bytes = Bytes(bytes);
                    break;
                case 8:
                    bytes = Bytes(std::move(bytes));
                    break;
                default:
                    bytes.assign(more), model = more;
                    break;
            }
            REQUIRE(bytes.size() == model.size());
            REQUIRE(bytes.capacity() >= bytes.size());
            REQUIRE(std::equal(bytes.begin(), bytes.end(), model.begin(), model.end()));
        }
    }
}

TEST_CASE("bytes are ordered as their values are, the shorter first") {
    const Bytes a{std::byte{1}, std::byte{2}};
    const Bytes b{std::byte{1}, std::byte{2}, std::byte{0}};
    const Bytes c{std::byte{0x80}};
    CHECK(a < b);
    CHECK(b < c);
    CHECK(a != b);
    CHECK(Bytes() == Bytes{});
    CHECK(Bytes() < a);
}

TEST_CASE("bytes moved from are empty and can be used again") {
    Bytes from(1000, std::byte{5});
    const std::byte* const where = from.data();
    Bytes to(std::move(from));
    CHECK(to.data() == where);
    CHECK(from.empty());
    from.push_back(std::byte{1});
    CHECK(from.size() == 1);
    to = to;
    CHECK(to == Bytes(1000, std::byte{5}));
}
