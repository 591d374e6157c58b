// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/server.h"

#include <cerrno>

#include "tests/sim/trace.h"
#include "user/process_server/garbage.h"
#include "user/process_server/restored_catalog.h"

namespace herald::sim {

using store::ObjectInfo;
using store::PutOutcome;

Result<PutOutcome> MemoryStore::put(const std::string& name, ByteView bytes) {
    at_step("store.before_put");
    between();
    if (objects.contains(name)) return PutOutcome::existed;
    const PutFault what = fault();
    if (what == PutFault::torn) {
        objects[name] = Bytes(bytes.begin(), bytes.begin() + std::ptrdiff_t(cut(bytes.size())));
    } else if (what != PutFault::lost) {
        objects[name] = Bytes(bytes.begin(), bytes.end());
    }
    // A crash here is a crash in the middle of the put, or right after it.
    at_step(what == PutFault::none ? "store.put" : "store.put_failed");
    between();
    if (what != PutFault::none) return fail(ErrorKind::retry, "{}: the store has trouble", name);
    return PutOutcome::created;
}

Result<Bytes> MemoryStore::get(const std::string& name, uint64_t offset, uint64_t length) {
    const auto found = objects.find(name);
    if (found == objects.end() || offset > found->second.size() ||
        length > found->second.size() - offset) {
        return fail_errno(ENOENT, name);
    }
    const auto begin = found->second.begin() + std::ptrdiff_t(offset);
    return Bytes(begin, begin + std::ptrdiff_t(length));
}

Result<ObjectInfo> MemoryStore::stat(const std::string& name) {
    const auto found = objects.find(name);
    if (found == objects.end()) return fail_errno(ENOENT, name);
    return ObjectInfo{name, found->second.size()};
}

Result<void> MemoryStore::list(const std::string& prefix,
                               const std::function<Result<void>(const ObjectInfo&)>& visit) {
    for (const auto& [name, bytes] : objects) {
        if (!name.starts_with(prefix)) continue;
        auto visited = visit({name, bytes.size()});
        if (!visited) return visited;
    }
    return {};
}

Result<void> MemoryStore::remove(const std::string& name) {
    at_step("store.remove");
    objects.erase(name);
    return {};
}

Result<store::StoreSpace> MemoryStore::space() {
    return store::StoreSpace{1ull << 40, full ? 0 : 1ull << 39};
}

Result<vault::GrantReply> Catalog::grant(const Uuid& disk, const Uuid& machine,
                                         const wire::SessionRequest& request) {
    at_step("catalog.before_grant");
    auto reply = MemoryCatalog::grant(disk, machine, request);
    if (reply) on_grant(request, *reply);
    at_step("catalog.after_grant");
    return reply;
}

Result<std::vector<vault::CatalogOutcome>> Catalog::commit(std::span<const vault::Commit> commits) {
    at_step("catalog.before_commit");
    const unsigned trouble = fault();
    if (trouble == 1) return fail(ErrorKind::retry, "the catalog has trouble");
    auto outcomes = MemoryCatalog::commit(commits);
    if (outcomes) {
        for (size_t i = 0; i < commits.size(); ++i) {
            if ((*outcomes)[i] == vault::CatalogOutcome::done) on_commit(commits[i]);
        }
    }
    at_step("catalog.after_commit");
    if (trouble == 2) return fail(ErrorKind::retry, "the catalog's answer was lost");
    return outcomes;
}

Result<void> Server::start() {
    auto opened = process_server::Service::open(store, *catalog, {});
    if (!opened) return pass(opened);
    service = std::move(*opened);
    return {};
}

void Server::restore(vault::MemoryCatalog::State state, std::optional<uint64_t> now_s,
                     const Uuid& nobody) {
    service.reset();
    auto older = std::make_unique<Catalog>(std::move(state));
    // Whatever dies in this is done again by the operator: no crash is of interest.
    const auto at_step = std::exchange(store.at_step, [](const char*) {});
    auto removed =
        now_s ? process_server::adopt_restored_catalog(store, *older, nobody, *now_s)
                    .transform([](const auto& restored) { return restored.removed; })
              : process_server::collect_garbage(store, *older, process_server::Unknown::superseded);
    if (!removed) violated("a restored catalog is not adopted: {}", removed.error().message);
    store.at_step = at_step;
    older->at_step = catalog->at_step;
    older->fault = catalog->fault;
    older->on_grant = catalog->on_grant;
    older->on_commit = catalog->on_commit;
    catalog = std::move(older);
}

}  // namespace herald::sim
