// SPDX-License-Identifier: Apache-2.0
// What every ObjectStore must do. `reopen` closes the store it handed out before and opens it
// again over the same objects; the store is empty at first.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.hpp"
#include "user/store/object_store.h"

namespace herald::test {

inline std::vector<std::string> names_in(store::ObjectStore& store, const std::string& prefix) {
    std::vector<std::string> names;
    REQUIRE(store.list(prefix, [&](const store::ObjectInfo& info) -> Result<void> {
        names.push_back(info.name);
        return {};
    }));
    return names;
}

inline void object_store_suite(const std::function<store::ObjectStore&()>& reopen) {
    using store::PutOutcome;
    store::ObjectStore* store = &reopen();

    SECTION("an object is there after put, also after opening again, and not before") {
        auto missing = store->stat("a/b");
        REQUIRE_FALSE(missing);
        CHECK(missing.error().sys == ENOENT);
        CHECK_FALSE(store->get("a/b", 0, 0));
        auto put = store->put("a/b", as_bytes("hello"));
        REQUIRE(put);
        CHECK(*put == PutOutcome::created);
        store = &reopen();
        auto info = store->stat("a/b");
        REQUIRE(info);
        CHECK(info->bytes == 5);
        auto bytes = store->get("a/b", 0, 5);
        REQUIRE(bytes);
        CHECK(as_text(*bytes) == "hello");
    }

    SECTION("a range of an object is read, one outside it is refused") {
        REQUIRE(store->put("x", as_bytes("0123456789")));
        auto middle = store->get("x", 3, 4);
        REQUIRE(middle);
        CHECK(as_text(*middle) == "3456");
        CHECK(store->get("x", 10, 0));
        CHECK_FALSE(store->get("x", 8, 3));
        CHECK_FALSE(store->get("x", 11, 0));
        CHECK_FALSE(store->get("x", ~0ull, 2));
        CHECK_FALSE(store->get("x", 2, ~0ull));
    }

    SECTION("a put of an existing name says so and changes nothing") {
        REQUIRE(store->put("one", as_bytes("first")));
        auto again = store->put("one", as_bytes("second, longer"));
        REQUIRE(again);
        CHECK(*again == PutOutcome::existed);
        auto bytes = store->get("one", 0, 5);
        REQUIRE(bytes);
        CHECK(as_text(*bytes) == "first");
        CHECK(store->stat("one")->bytes == 5);
    }

    SECTION("an empty object is an object") {
        REQUIRE(store->put("empty", {}));
        auto info = store->stat("empty");
        REQUIRE(info);
        CHECK(info->bytes == 0);
    }

    SECTION("list gives the names with a prefix, in the order of the whole names") {
        for (const char* name : {"a/b", "a-b", "a.b", "a0", "b/c/d", "b/c", "b.c/d"}) {
            if (std::string(name) == "b/c") continue;  // a name is never also a folder
            REQUIRE(store->put(name, as_bytes("x")));
        }
        using Names = std::vector<std::string>;
        CHECK(names_in(*store, "") == Names{"a-b", "a.b", "a/b", "a0", "b.c/d", "b/c/d"});
        CHECK(names_in(*store, "a") == Names{"a-b", "a.b", "a/b", "a0"});
        CHECK(names_in(*store, "a/") == Names{"a/b"});
        CHECK(names_in(*store, "b/c") == Names{"b/c/d"});
        CHECK(names_in(*store, "c").empty());
    }

    SECTION("list stops with the visitor's error") {
        REQUIRE(store->put("a", as_bytes("x")));
        REQUIRE(store->put("b", as_bytes("x")));
        int seen = 0;
        auto listed = store->list("", [&](const store::ObjectInfo&) -> Result<void> {
            ++seen;
            return fail(ErrorKind::retry, "enough");
        });
        REQUIRE_FALSE(listed);
        CHECK(listed.error().message == "enough");
        CHECK(seen == 1);
    }

    SECTION("a removed object is gone; removing it again succeeds; its name is free") {
        REQUIRE(store->put("a/b", as_bytes("x")));
        CHECK(store->remove("a/b"));
        CHECK(store->remove("a/b"));
        CHECK(store->remove("never/was"));
        CHECK_FALSE(store->stat("a/b"));
        auto put = store->put("a/b", as_bytes("y"));
        REQUIRE(put);
        CHECK(*put == PutOutcome::created);
    }

    SECTION("a name that is no name is refused by every operation") {
        const std::string longest(255, 'a');
        CHECK(store->put(longest, as_bytes("x")));
        for (const std::string& name :
             {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"),
              std::string(".."), std::string("../a"), std::string("a/../b"), std::string("a/."),
              std::string("A"), std::string("a b"), std::string("a\0b", 3), std::string("a\\b"),
              std::string("\xc3\xa4"), longest + "a"}) {
            CAPTURE(name);
            CHECK_FALSE(store->put(name, as_bytes("x")));
            CHECK_FALSE(store->get(name, 0, 0));
            CHECK_FALSE(store->stat(name));
            CHECK_FALSE(store->remove(name));
        }
        CHECK(names_in(*store, "").size() == 1);
    }

    SECTION("of many puts of one name at once exactly one creates it, whole") {
        std::atomic<int> created{0};
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&, i] {
                const Bytes bytes(100000, std::byte(i));
                for (int n = 0; n < 8; ++n) {
                    auto put = store->put("d" + std::to_string(n) + "/same", bytes);
                    if (put && *put == PutOutcome::created) ++created;
                }
            });
        }
        for (std::thread& thread : threads) thread.join();
        CHECK(created == 8);
        for (const std::string& name : names_in(*store, "")) {
            auto bytes = store->get(name, 0, 100000);
            REQUIRE(bytes);
            CHECK(std::count(bytes->begin(), bytes->end(), bytes->front()) == 100000);
        }
    }

    SECTION("free space is known") {
        auto space = store->space();
        REQUIRE(space);
        CHECK(space->total_bytes > 0);
        CHECK(space->free_bytes <= space->total_bytes);
    }
}

}  // namespace herald::test
