// SPDX-License-Identifier: Apache-2.0
// Server is a process server whose store and catalog are memory: the real Service over them, which
// a crash destroys, and the two of them, which it leaves. Faults and crashes come through at_step,
// called around every durable step; a put lets other requests in meanwhile through `between`.
// Callers: one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>

#include "user/process_server/service.h"
#include "user/store/object_store.h"
#include "user/vault/memory_catalog.h"

namespace herald::sim {

struct ServerCrash {};

enum class PutFault {
    none,
    lost,   // the put fails and nothing is there
    torn,   // the put fails and a part of the object is there under its name
    whole,  // the put fails, yet the object is there
};

class MemoryStore : public store::ObjectStore {
  public:
    std::map<std::string, Bytes> objects;
    bool full = false;
    std::function<void(const char*)> at_step;
    std::function<PutFault()> fault;  // decides for each put
    std::function<void()> between;
    std::function<size_t(size_t)> cut;  // where a torn object ends

    Result<store::PutOutcome> put(const std::string& name, ByteView bytes) override;
    Result<Bytes> get(const std::string& name, uint64_t offset, uint64_t length) override;
    Result<store::ObjectInfo> stat(const std::string& name) override;
    Result<void> list(const std::string& prefix,
                      const std::function<Result<void>(const store::ObjectInfo&)>& visit) override;
    Result<void> remove(const std::string& name) override;
    Result<store::StoreSpace> space() override;
};

class Catalog : public vault::MemoryCatalog {
  public:
    using MemoryCatalog::MemoryCatalog;
    std::function<void(const char*)> at_step;
    // 0: works; 1: fails before anything changed; 2: fails although it is durable.
    std::function<unsigned()> fault;
    std::function<void(const wire::SessionRequest&, const vault::GrantReply&)> on_grant;
    std::function<void(const vault::Commit&)> on_commit;  // durable now

    Result<vault::GrantReply> grant(const Uuid& disk, const Uuid& machine,
                                    const wire::SessionRequest& request) override;
    Result<std::vector<vault::CatalogOutcome>> commit(
        std::span<const vault::Commit> commits) override;
};

struct Server {
    MemoryStore store;
    std::unique_ptr<Catalog> catalog = std::make_unique<Catalog>();
    std::unique_ptr<process_server::Service> service;  // nothing while it is down

    void crash() { service.reset(); }
    Result<void> start();
    // The catalog of an earlier moment, with its hooks, as an operator brings it back: adopted at
    // this time by adopt_restored_catalog(), or with its unknown objects removed and no more.
    void restore(vault::MemoryCatalog::State state, std::optional<uint64_t> now_s,
                 const Uuid& nobody);
};

}  // namespace herald::sim
