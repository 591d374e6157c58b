// SPDX-License-Identifier: Apache-2.0
// Which log follows which, by the ids in their headers.
#include "user/hrl/v2/chain.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::hrl::v2;

namespace {

Link link(uint8_t id, uint8_t previous, uint64_t created = 0) {
    Link made;
    made.name = std::string(1, char(id)) + ".hrl";
    made.id.bytes.fill(std::byte{id});
    made.previous.bytes.fill(std::byte{previous});
    made.created_ns = created;
    return made;
}

std::string names(const std::vector<Link>& links, const Chain& chain) {
    std::string all;
    for (const size_t i : chain.order) all += links[i].name.substr(0, 1);
    return all;
}

bool has_problem(const Chain& chain, const std::string& text) {
    for (const auto& problem : chain.problems) {
        if (problem.find(text) != std::string::npos) return true;
    }
    return false;
}

}  // namespace

TEST_CASE("a chain is ordered by the ids, whatever the order of the files and of their times") {
    const std::vector<Link> links{link('c', 'b', 1), link('a', 0, 9), link('d', 'c', 5),
                                  link('b', 'a', 7)};
    const Chain chain = follow_links(links);
    CHECK(names(links, chain) == "abcd");
    CHECK(chain.problems.empty());
}

TEST_CASE("a chain may begin after a log that is not there, but only once") {
    const std::vector<Link> tail{link('c', 'b'), link('b', 'a')};
    CHECK(follow_links(tail).problems.empty());
    CHECK(names(tail, follow_links(tail)) == "bc");
    const std::vector<Link> gap{link('a', 0, 1), link('b', 'a', 2), link('d', 'c', 3)};
    const Chain chain = follow_links(gap);
    CHECK(names(gap, chain) == "abd");
    CHECK(chain.problems.size() == 1);
    CHECK(has_problem(chain, "gap: d.hrl follows log 63636363-"));
    const std::vector<Link> two{link('a', 0, 1), link('b', 0, 2)};
    CHECK(has_problem(follow_links(two), "gap: b.hrl begins a chain of its own"));
}

TEST_CASE("forks, duplicates and loops are named, and no file is forgotten") {
    const std::vector<Link> fork{link('a', 0), link('b', 'a', 1), link('c', 'a', 2),
                                 link('d', 'b', 3)};
    const Chain forked = follow_links(fork);
    CHECK(names(fork, forked) == "abdc");
    CHECK(has_problem(forked, "fork: b.hrl, c.hrl all follow a.hrl"));

    const std::vector<Link> twice{link('a', 0), link('b', 'a'), link('a', 0)};
    const Chain doubled = follow_links(twice);
    CHECK(names(twice, doubled) == "ab");
    CHECK(has_problem(doubled, "duplicate: a.hrl and a.hrl"));

    const std::vector<Link> loop{link('a', 'b'), link('b', 'a'), link('c', 'c')};
    const Chain looped = follow_links(loop);
    CHECK(looped.order.size() == 3);
    CHECK(has_problem(looped, "loop: a.hrl"));
    CHECK(has_problem(looped, "loop: c.hrl"));
    CHECK(follow_links({}).order.empty());
}
