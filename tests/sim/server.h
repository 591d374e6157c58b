// SPDX-License-Identifier: Apache-2.0
// Server: the process server's cores (DiskGate, catalog, upload verification) over memory that a
// crash keeps. Kept is what is durable; everything else is gone when the Server is destroyed.
// A crash is the exception ServerCrash, thrown at a durable step, before or after it.
#pragma once

#include <functional>
#include <memory>

#include "user/process_server/disk_gate.h"
#include "user/replicator/session.h"
#include "user/vault/memory_catalog.h"

namespace herald::sim {

struct ServerCrash {};

struct Kept {
    std::map<std::string, Bytes> objects;
    vault::MemoryCatalog::State catalog;
};

using Answer = std::variant<wire::SessionGrant, wire::SegmentAck, Bytes, replicator::Failure>;

class Server {
  public:
    // at_step: may throw ServerCrash. full: whether the store has no room now. committed: called
    // with each segment that became part of the stream.
    struct Hooks {
        std::function<void(const char*)> at_step;
        std::function<bool()> full;
        std::function<bool()> torn;  // whether a crash in a put leaves a part of the object
        std::function<void(const vault::SegmentRow&)> committed;
        bool old_epoch = false;  // broken on purpose
    };
    Server(Kept& kept, const Uuid& machine, const Uuid& disk, Hooks hooks);
    ~Server();

    Answer session(const wire::SessionRequest& request);
    Answer put(uint64_t epoch, uint64_t first, const std::string& digest, ByteView body);
    Answer digests(uint64_t count);

  private:
    Answer commit_old(uint64_t epoch, uint64_t first, const std::string& digest, ByteView body);
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace herald::sim
