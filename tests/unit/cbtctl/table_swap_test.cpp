// SPDX-License-Identifier: Apache-2.0
#include "tools/cbtctl/table_swap.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::cbtctl;

TEST_CASE("a table is whole lines without a hole, or none") {
    const auto table = parse_table("0 100 linear 8:0 2048\n100 28 crypt aes-xts key 0 8:1 0 \n");
    REQUIRE(table);
    REQUIRE(table->size() == 2);
    CHECK((*table)[0].target == "linear");
    CHECK((*table)[1].first == 100);
    CHECK((*table)[1].arguments == "aes-xts key 0 8:1 0");
    for (const char* text : {"", "\n", "0 100\n", "1 100 linear 8:0 0\n", "0 0 linear 8:0 0\n",
                             "0 100 linear 8:0 0\n101 5 linear 8:0 0\n", "x y z\n"}) {
        INFO(text);
        CHECK_FALSE(parse_table(text));
    }
}

TEST_CASE("only targets without a state of their own are moved, the others named") {
    const auto why = [](const char* text) { return why_not_shared(*parse_table(text)); };
    CHECK(why("0 8 linear 8:0 0\n8 8 striped 2 8 8:0 0 8:1 0\n16 8 crypt a k 0 8:0 0\n").empty());
    CHECK(why("0 8 thin 253:1 1\n").empty());
    for (const char* target : {"snapshot", "snapshot-origin", "raid", "cache", "writecache",
                               "integrity", "multipath", "era", "thin-pool"}) {
        const std::string text = std::string("0 8 linear 8:0 0\n8 8 ") + target + " x\n";
        CHECK(why(text.c_str()).find(target) != std::string::npos);
    }
}

TEST_CASE("a program gets its input whole and gives its output whole; its end is told apart") {
    const std::string large(3u << 20, 'x');
    auto copied = run_program({"cat"}, large);
    REQUIRE(copied);
    CHECK(copied->status == 0);
    CHECK(copied->out == large);
    auto failed = run_program({"sh", "-c", "echo no >&2; exit 7"});
    REQUIRE(failed);
    CHECK(failed->status == 7);
    CHECK(failed->err == "no\n");
    CHECK(failed->out.empty());
    CHECK(run_program({"sh", "-c", "kill -9 $$"})->status == 137);
    CHECK(run_program({"herald-no-such-program"})->status == 127);
    // Words are words: no shell looks at them.
    CHECK(run_program({"echo", "$HOME; exit 1"})->out == "$HOME; exit 1\n");
}
