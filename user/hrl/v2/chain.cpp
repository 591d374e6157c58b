// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/chain.h"

#include <algorithm>
#include <map>

namespace herald::hrl::v2 {

Chain follow_links(const std::vector<Link>& links) {
    Chain chain;
    std::map<Uuid, size_t> by_id;
    std::vector<size_t> kept;
    for (size_t i = 0; i < links.size(); ++i) {
        const auto [it, is_new] = by_id.emplace(links[i].id, i);
        if (is_new) {
            kept.push_back(i);
        } else {
            chain.problems.push_back(fmt::format("duplicate: {} and {} are both log {}",
                                                 links[it->second].name, links[i].name,
                                                 to_string(links[i].id)));
        }
    }
    std::ranges::stable_sort(kept, {}, [&](size_t i) { return links[i].created_ns; });

    std::map<Uuid, std::vector<size_t>> followers;
    std::vector<size_t> begins;  // files before which no other of the set comes
    for (const size_t i : kept) {
        if (by_id.contains(links[i].previous)) {
            followers[links[i].previous].push_back(i);
        } else {
            begins.push_back(i);
        }
    }
    // What a set begins with may follow something older; every other beginning is a gap.
    for (size_t n = 1; n < begins.size(); ++n) {
        const Link& link = links[begins[n]];
        chain.problems.push_back(
            link.previous.is_nil()
                ? fmt::format("gap: {} begins a chain of its own", link.name)
                : fmt::format("gap: {} follows log {}, which is not among the files", link.name,
                              to_string(link.previous)));
    }
    std::vector<bool> placed(links.size());
    const auto place_from = [&](size_t begin) {
        std::vector<size_t> waiting{begin};
        while (!waiting.empty()) {
            const size_t i = waiting.back();
            waiting.pop_back();
            if (placed[i]) continue;
            placed[i] = true;
            chain.order.push_back(i);
            const auto it = followers.find(links[i].id);
            if (it == followers.end()) continue;
            if (it->second.size() > 1) {
                std::string names;
                for (const size_t follower : it->second) {
                    names += (names.empty() ? "" : ", ") + links[follower].name;
                }
                chain.problems.push_back(
                    fmt::format("fork: {} all follow {}", names, links[i].name));
            }
            waiting.insert(waiting.end(), it->second.rbegin(), it->second.rend());
        }
    };
    for (const size_t i : begins) place_from(i);
    for (const size_t i : kept) {
        if (placed[i]) continue;
        chain.problems.push_back(
            fmt::format("loop: {} comes before itself, by the ids", links[i].name));
        place_from(i);
    }
    return chain;
}

}  // namespace herald::hrl::v2
