// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/loss_ledger.h"

#include "tests/catch.hpp"

using namespace herald::tracker;
using namespace std::chrono_literals;

namespace {
const LossLedger::Time kStart{};
}

TEST_CASE("losses of one kind alone ask for nothing") {
    Losses weighed;
    LossLedger ledger(weighed);
    CHECK_FALSE(ledger.both({7, 0}).has_value());
    CHECK(ledger.any({7, 0}));
    Losses other;
    CHECK_FALSE(LossLedger(other).both({0, 7}).has_value());
}

TEST_CASE("losses of both kinds may have hidden a write, and are answered once") {
    Losses weighed{10, 20};
    LossLedger ledger(weighed);
    CHECK(ledger.both({13, 21}) == Losses{3, 1});
    CHECK_FALSE(ledger.both({13, 21}).has_value());
    CHECK_FALSE(ledger.any({13, 21}));
}

TEST_CASE("a lost submission is not weighed off by one look at an idle disk") {
    Losses weighed;
    LossLedger ledger(weighed);
    // The write whose submission was skipped is under way, and the kernel counts it a moment later.
    ledger.looked({1, 0}, true, kStart);
    CHECK(ledger.both({1, 1}) == Losses{1, 1});
}

TEST_CASE("losses of one kind are weighed off when the disk was idle twice and nothing was added") {
    Losses weighed;
    LossLedger ledger(weighed);
    ledger.looked({1, 0}, true, kStart);
    ledger.looked({1, 0}, true, kStart + 99ms);
    CHECK(ledger.any({1, 0}));
    ledger.looked({1, 0}, false, kStart + 100ms);
    CHECK(ledger.any({1, 0}));
    ledger.looked({1, 0}, true, kStart + 101ms);
    CHECK_FALSE(ledger.any({1, 0}));
    CHECK_FALSE(ledger.both({1, 1}).has_value());
}

TEST_CASE("a loss between two looks at an idle disk begins the wait anew") {
    Losses weighed;
    LossLedger ledger(weighed);
    ledger.looked({1, 0}, true, kStart);
    ledger.looked({2, 0}, true, kStart + 200ms);
    CHECK(ledger.any({2, 0}));
    CHECK(ledger.both({2, 1}) == Losses{2, 1});
}

TEST_CASE("a disk that is never idle keeps its losses") {
    Losses weighed;
    LossLedger ledger(weighed);
    for (int i = 0; i < 10; ++i) ledger.looked({1, 0}, false, kStart + i * 1s);
    CHECK(ledger.both({1, 1}) == Losses{1, 1});
}
