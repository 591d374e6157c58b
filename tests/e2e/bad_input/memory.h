// SPDX-License-Identifier: Apache-2.0
// The memory bound that every bad-input test ends with.
#pragma once

#include "tests/catch.hpp"
#include "tests/e2e/support/test_site.h"

namespace herald::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// Shadow memory is not the server's.
inline constexpr uint64_t kServerRssMax = UINT64_MAX;
#else
inline constexpr uint64_t kServerRssMax = 256ull << 20;
#endif

inline void check_server_memory(TestSite& site) {
    CHECK(site.server().running());
    const uint64_t rss = peak_rss_bytes(site.server().pid());
    CHECK(rss > 0);
    CHECK(rss < kServerRssMax);
}

}  // namespace herald::test
