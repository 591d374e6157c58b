// SPDX-License-Identifier: Apache-2.0
// Service: the disks of one daemon and what the control socket may do with them.
// Layout of requests and answers: docs/reference/control.md.
// Callers: handle() from a thread of each connection; the rest from one. Owns: the workers, a
// thread that watches over the disks that are missing or let go, and one for each look at a missing
// disk: a look at a disk that hangs never ends, and nothing else is to wait for it. Failure: an
// error answer that says what to do; disks do not disturb each other.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "user/agent/control.h"
#include "user/replicator/disk_worker.h"

namespace herald::replicator {

class Service {
  public:
    explicit Service(Host& host);
    ~Service();

    // The disks of the configuration and of the state directory. A disk that is not there is
    // logged and looked for again every few seconds.
    void start();
    void handle(const nlohmann::json& request, agent::ControlConnection& connection);
    // Ends every worker, within a minute; points under way are answered. False: a disk does not
    // answer, so that this object must not be destroyed; end the process.
    [[nodiscard]] bool stop();
    // For sd_notify: one line.
    std::string summary() const;

  private:
    using WorkerPtr = std::shared_ptr<DiskWorker>;
    // With the last looks below TimeoutStopSec of the unit. A freeze that a client holds (10 s) or
    // a request to a server that hangs (30 s) ends before that.
    static constexpr std::chrono::seconds kStopMax{50};
    static constexpr char kLeavingCause[] =
        "unprotected, and the disk does not answer: it is let go when it does";

    struct Leaving {
        WorkerPtr worker;
        bool waited_for;  // by the connection that unprotects it; otherwise by the watcher
    };
    struct Look {
        std::thread thread;
        bool ended = false;
    };
    Result<nlohmann::json> answer(const nlohmann::json& request,
                                  agent::ControlConnection& connection);
    Result<WorkerPtr> find(const nlohmann::json& request) const;
    // By what the daemon knows, without a look at any disk; nothing when it is not that.
    WorkerPtr named(const std::string& name) const;
    // missing: the path under which the disk is in missing_, so that it is added only if it still
    // is, and taken out of there.
    Result<WorkerPtr> add(const std::filesystem::path& path, const std::string& missing = "");
    std::vector<WorkerPtr> workers() const;
    bool stopping() const;
    void watch();
    void look_for_missing();
    void look_for(const std::string& path);
    // Protects the disk that is meant by a missing path.
    Result<void> find_missing(const std::string& path);
    void let_go_of_leaving();
    void detach_unprotected(std::vector<ChosenDisk>& disks);
    bool looks_ended() const;
    Result<void> let_go(const WorkerPtr& worker);
    bool is_configured(const std::string& path) const;

    // In service_requests.cpp.
    Result<bool> unprotect_missing(const std::string& path);
    nlohmann::json list() const;
    Result<nlohmann::json> map(const nlohmann::json& request) const;
    Result<nlohmann::json> tag(const nlohmann::json& request,
                               agent::ControlConnection& connection) const;
    Result<nlohmann::json> resync(const nlohmann::json& request) const;
    Result<nlohmann::json> protect(const nlohmann::json& request);
    Result<nlohmann::json> unprotect(const nlohmann::json& request);
    nlohmann::json doctor() const;

    Host& host_;
    mutable std::mutex lock_;  // guards all below
    bool stopped_ = false;
    bool looked_ = false;  // the first looks have begun
    bool watch_ended_ = true;
    std::condition_variable watch_wake_;
    std::map<Uuid, WorkerPtr> workers_;
    std::vector<Leaving> leaving_;                // unprotected, and not let go yet
    std::vector<WorkerPtr> given_up_;             // their threads hang: never to be destroyed
    std::map<std::string, std::string> missing_;  // path -> why
    std::map<std::string, Look> looks_;           // by path, HERALD_DISKS_MAX at most

    std::thread watcher_;
};

}  // namespace herald::replicator
