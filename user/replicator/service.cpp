// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <mutex>
#include <system_error>

#include "user/tracker/ebpf_tracker.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::seconds kLookInterval{5};
constexpr std::chrono::seconds kFirstLookMax{3};
constexpr std::chrono::seconds kLastLookMax{2};

}  // namespace

Service::Service(Host& host) : host_(host) {}

Service::~Service() { HERALD_ASSERT(stop()); }

std::vector<Service::WorkerPtr> Service::workers() const {
    const std::lock_guard lock(lock_);
    // Names may change meanwhile: each is looked at once.
    std::multimap<std::string, WorkerPtr> by_name;
    for (const auto& [id, worker] : workers_) by_name.emplace(worker->disk().kernel_name, worker);
    std::vector<WorkerPtr> all;
    for (const auto& [name, worker] : by_name) all.push_back(worker);
    return all;
}

bool Service::stopping() const {
    const std::lock_guard lock(lock_);
    return stopped_;
}

bool Service::is_configured(const std::string& path) const {
    return std::find(host_.config.disks.begin(), host_.config.disks.end(), path) !=
           host_.config.disks.end();
}

void Service::start() {
    const auto chosen = host_.state->chosen();
    host_.disks = std::max<size_t>(1, host_.config.disks.size() + chosen.size());
    {
        const std::lock_guard lock(lock_);
        for (const auto& path : host_.config.disks) missing_[path.native()] = "not looked for yet";
        for (const ChosenDisk& disk : chosen) {
            if (disk.protect) missing_[disk.path] = "not looked for yet";
        }
        watch_ended_ = false;
    }
    watcher_ = std::thread([this] { watch(); });
    std::unique_lock lock(lock_);
    watch_wake_.wait_for(lock, kFirstLookMax, [&] { return looked_ && looks_ended(); });
}

bool Service::looks_ended() const {
    return std::all_of(looks_.begin(), looks_.end(),
                       [](const auto& look) { return look.second.ended; });
}

void Service::watch() {
    std::vector<ChosenDisk> unprotected = host_.state->chosen();
    std::erase_if(unprotected, [](const ChosenDisk& disk) { return disk.protect; });
    for (;;) {
        detach_unprotected(unprotected);
        let_go_of_leaving();
        look_for_missing();
        std::unique_lock lock(lock_);
        watch_wake_.wait_for(lock, kLookInterval, [&] { return stopped_; });
        if (!stopped_) continue;
        watch_ended_ = true;
        watch_wake_.notify_all();
        return;
    }
}

// Disks that were unprotected and not let go when the last replicator ended: one was killed, or did
// not wait for a disk that hung. Those that something still keeps are tried again.
void Service::detach_unprotected(std::vector<ChosenDisk>& disks) {
    std::erase_if(disks, [&](const ChosenDisk& disk) {
        tracker::EbpfOptions options;
        options.bpf_dir = host_.config.bpf_dir;
        options.state_dir = host_.config.state_dir;
        options.disk = Uuid::from_name(host_.config.machine, disk.identity);
        {
            const std::lock_guard lock(lock_);
            if (stopped_) return false;
            if (workers_.contains(options.disk)) return true;  // protected again
        }
        auto detached = tracker::EbpfTracker::detach(options);
        if (detached) host_.state->forget(options.disk);
        return detached.has_value();
    });
}

void Service::look_for_missing() {
    const std::lock_guard lock(lock_);
    if (stopped_) return;
    for (auto look = looks_.begin(); look != looks_.end();) {
        const auto next = std::next(look);
        if (look->second.ended) {
            look->second.thread.join();
            looks_.erase(look);
        }
        look = next;
    }
    for (const auto& [path, why] : missing_) {
        if (looks_.contains(path) || looks_.size() >= HERALD_DISKS_MAX) continue;
        Look& look = looks_[path];
        try {
            look.thread = std::thread([this, path = path, &look] {
                look_for(path);
                const std::lock_guard ending(lock_);
                look.ended = true;
                watch_wake_.notify_all();
            });
        } catch (const std::system_error&) {
            looks_.erase(path);  // no thread for it: in the next round
        }
    }
    looked_ = true;
    watch_wake_.notify_all();
}

void Service::look_for(const std::string& path) {
    auto found = find_missing(path);
    if (found) return;
    const std::lock_guard lock(lock_);
    const auto missing = missing_.find(path);
    if (missing == missing_.end() || missing->second == found.error().message) return;
    missing->second = found.error().message;
    spdlog::error("{}: not protected: {}", path, missing->second);
}

Result<void> Service::find_missing(const std::string& path) {
    auto identity = agent::identify(path);
    const auto chosen = host_.state->chosen();
    const auto remembered = std::find_if(chosen.begin(), chosen.end(), [&](const ChosenDisk& disk) {
        return disk.protect && disk.path == path;
    });
    if (!is_configured(path) && remembered != chosen.end() &&
        (!identity || identity->identity != remembered->identity)) {
        // Names change with the order in which disks are found; what was chosen is the disk.
        const std::string here =
            identity ? fmt::format("{} is now another disk ({})", path, identity->identity)
                     : identity.error().message;
        auto found = agent::find_disk(remembered->identity);
        auto added = found ? add(found->node(), path) : Result<WorkerPtr>(pass(found));
        if (!added) {
            return fail(ErrorKind::operator_needed, "{}; {}", here, added.error().message);
        }
        auto kept = host_.state->found_at(remembered->identity, (*added)->disk().node().native());
        if (!kept) spdlog::warn("{}", kept.error().message);
        return {};
    }
    if (!identity) return pass(identity);
    const auto choice = std::find_if(chosen.begin(), chosen.end(), [&](const ChosenDisk& disk) {
        return disk.identity == identity->identity;
    });
    if (choice != chosen.end() && !choice->protect) {
        const std::lock_guard lock(lock_);
        missing_.erase(path);  // unprotected by an operator
        return {};
    }
    auto added = add(path, path);
    if (!added) return pass(added);
    return {};
}

// Its thread has ended.
Result<void> Service::let_go(const WorkerPtr& worker) {
    auto detached = worker->detach();
    if (detached) host_.state->forget(worker->id());
    const std::lock_guard lock(lock_);
    std::erase_if(leaving_, [&](const Leaving& leaving) { return leaving.worker == worker; });
    return detached;
}

void Service::let_go_of_leaving() {
    std::vector<WorkerPtr> all;
    {
        const std::lock_guard lock(lock_);
        for (const Leaving& leaving : leaving_) {
            if (!leaving.waited_for) all.push_back(leaving.worker);
        }
    }
    for (const WorkerPtr& worker : all) {
        if (!worker->join_by(std::chrono::steady_clock::now())) continue;
        const std::string name = worker->disk().node().native();
        auto gone = let_go(worker);
        if (gone) {
            spdlog::info("{}: answered, and was let go", name);
        } else {
            spdlog::error("{}: {}", name, gone.error().message);
        }
    }
}

Result<Service::WorkerPtr> Service::add(const std::filesystem::path& path,
                                        const std::string& missing) {
    auto identity = agent::identify(path);
    if (!identity) return pass(identity);
    const Uuid id = identity->disk_id(host_.config.machine);
    auto on_disk = agent::is_on_disk(host_.config.state_dir, *identity);
    if (on_disk && *on_disk) {
        spdlog::warn(
            "{}: the state directory {} lies on this disk; it is never written during a "
            "freeze, but a disk of its own is better",
            identity->node().native(), host_.config.state_dir.native());
    }
    const Remembered remembered = host_.state->remembered(id);
    std::string looked_at;  // what has this identity, too, and is not it any more
    std::unique_lock lock(lock_);
    for (;;) {
        if (stopped_) return fail(ErrorKind::retry, "the replicator is stopping");
        if (!missing.empty() && !missing_.contains(missing)) {
            return fail(ErrorKind::retry, "{}: unprotected meanwhile", missing);
        }
        for (const Leaving& leaving : leaving_) {
            if (leaving.worker->id() == id) {
                return fail(ErrorKind::retry, "{}: {}", path.native(), kLeavingCause);
            }
        }
        const auto found = workers_.find(id);
        if (found == workers_.end()) break;
        const agent::DiskIdentity theirs = found->second->disk();
        if (theirs.kernel_name == identity->kernel_name || theirs.kernel_name == looked_at) {
            missing_.erase(missing);
            return found->second;
        }
        // The same disk under a new name, or a second one that says it is the first: a copy of its
        // partition table, another path to it, another loop device on its file.
        lock.unlock();
        auto still = agent::identify(theirs.node());
        if (still && still->identity == identity->identity) {
            return fail(ErrorKind::operator_needed,
                        "{} says that it is {}, as {} does, which is protected: writes to {} "
                        "would not be seen; give it an identity of its own, or detach it",
                        path.native(), identity->identity, theirs.node().native(), path.native());
        }
        looked_at = theirs.kernel_name;
        lock.lock();
    }
    if (workers_.size() >= HERALD_DISKS_MAX) {
        return fail(ErrorKind::operator_needed,
                    "{} disks are protected already, the most there can be", HERALD_DISKS_MAX);
    }
    host_.disks = std::max(host_.disks.load(), workers_.size() + 1);
    try {
        auto worker = std::make_shared<DiskWorker>(host_, std::move(*identity), remembered);
        missing_.erase(missing);
        workers_[id] = worker;
        return worker;
    } catch (const std::system_error& thrown) {
        return fail(ErrorKind::retry, "{}: no thread for it: {}", path.native(), thrown.what());
    }
}

bool Service::stop() {
    std::vector<WorkerPtr> all;
    {
        // At once: a disk that is added after this is refused, one added before is in here.
        const std::lock_guard lock(lock_);
        stopped_ = true;
        for (const auto& [id, worker] : workers_) all.push_back(worker);
        for (const Leaving& leaving : leaving_) all.push_back(leaving.worker);
        workers_.clear();
        leaving_.clear();
        watch_wake_.notify_all();
    }
    for (const WorkerPtr& worker : all) worker->stop();
    const auto until = std::chrono::steady_clock::now() + kStopMax;
    std::erase_if(all, [&](const WorkerPtr& worker) { return worker->join_by(until); });
    for (const WorkerPtr& worker : all) {
        spdlog::error(
            "{}: does not answer: ending without it; what was not read yet stays dirty and is "
            "read after the next start",
            worker->disk().node().native());
    }
    std::unique_lock lock(lock_);
    given_up_.insert(given_up_.end(), all.begin(), all.end());
    if (!given_up_.empty()) return false;
    if (!watch_wake_.wait_for(lock, kLastLookMax, [&] { return watch_ended_ && looks_ended(); })) {
        return false;
    }
    // Each is at its end.
    for (auto& [path, look] : looks_) look.thread.join();
    looks_.clear();
    if (watcher_.joinable()) watcher_.join();
    return true;
}

std::string Service::summary() const {
    std::string text;
    for (const WorkerPtr& worker : workers()) {
        const DiskStatus status = worker->status();
        text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", worker->disk().kernel_name,
                            condition_of(status).state);
    }
    return text.empty() ? "no disk is protected: cbtctl protect DISK" : text;
}

}  // namespace herald::replicator
