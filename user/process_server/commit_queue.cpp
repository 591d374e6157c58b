// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/commit_queue.h"

namespace herald::process_server {

Result<vault::CatalogOutcome> CommitQueue::commit(const vault::Commit& commit) {
    Waiter self;
    self.commit = &commit;
    std::unique_lock hold(lock_);
    waiting_.push_back(&self);
    changed_.wait(hold, [&] { return self.finished || !busy_; });
    if (self.finished) return self.outcome;
    busy_ = true;
    const std::vector<Waiter*> batch = std::exchange(waiting_, {});
    hold.unlock();
    commit_batch(batch);
    hold.lock();
    for (Waiter* waiter : batch) waiter->finished = true;
    busy_ = false;
    changed_.notify_all();
    return self.outcome;
}

void CommitQueue::commit_batch(const std::vector<Waiter*>& batch) {
    std::vector<vault::Commit> commits;
    for (const Waiter* waiter : batch) commits.push_back(*waiter->commit);
    auto outcomes = catalog_.commit(commits);
    if (outcomes) {
        for (size_t i = 0; i < batch.size(); ++i) batch[i]->outcome = (*outcomes)[i];
        return;
    }
    if (batch.size() == 1) {
        batch[0]->outcome = pass(outcomes);
        return;
    }
    // Nothing was committed. What failed may be one of them alone.
    for (Waiter* waiter : batch) commit_batch({waiter});
}

}  // namespace herald::process_server
