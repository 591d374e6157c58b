// SPDX-License-Identifier: Apache-2.0
// CommitQueue lets commits that come at the same time share one transaction and one fsync: while
// one caller commits, the others gather, and the next of them commits for all.
// Promise: commit() returns what the catalog said of exactly this commit, after it is durable. One
// disk's trouble fails no other disk's commit.
// Callers: any thread; blocks. At most one commit per disk at a time.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "user/vault/catalog.h"

namespace herald::process_server {

class CommitQueue {
  public:
    explicit CommitQueue(vault::Catalog& catalog) : catalog_(catalog) {}
    Result<vault::CatalogOutcome> commit(const vault::Commit& commit);

  private:
    struct Waiter {
        const vault::Commit* commit = nullptr;
        Result<vault::CatalogOutcome> outcome = vault::CatalogOutcome::done;
        bool finished = false;
    };
    void commit_batch(const std::vector<Waiter*>& batch);

    vault::Catalog& catalog_;
    std::mutex lock_;  // level 2; guards waiting_, busy_ and Waiter::finished
    std::condition_variable changed_;
    std::vector<Waiter*> waiting_;
    bool busy_ = false;
};

}  // namespace herald::process_server
