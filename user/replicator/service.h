// SPDX-License-Identifier: Apache-2.0
// Service: the disks of one daemon and what the control socket may do with them.
// Layout of requests and answers: docs/reference/control.md.
// Callers: handle() from a thread of each connection. Owns: the workers.
// Failure: an error answer that says what to do; disks do not disturb each other.
#pragma once

#include <map>
#include <mutex>

#include "user/agent/control.h"
#include "user/replicator/disk_worker.h"

namespace herald::replicator {

class Service {
  public:
    explicit Service(Host& host);
    ~Service();

    // The disks of the configuration and of the state directory. A disk that is not there is
    // logged and looked for again by watch().
    void start();
    // Looks for missing disks; call now and then.
    void watch();
    void handle(const nlohmann::json& request, agent::ControlConnection& connection);
    // Ends every worker; points under way are answered.
    void stop();
    // For sd_notify: one line.
    std::string summary() const;

  private:
    using WorkerPtr = std::shared_ptr<DiskWorker>;
    Result<nlohmann::json> answer(const nlohmann::json& request,
                                  agent::ControlConnection& connection);
    Result<WorkerPtr> find(const nlohmann::json& request) const;
    Result<WorkerPtr> add(const std::filesystem::path& path);
    std::vector<WorkerPtr> workers() const;
    bool stopping() const;
    bool is_configured(const std::string& path) const;
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
    std::map<Uuid, WorkerPtr> workers_;
    std::map<std::string, std::string> missing_;  // path -> why
};

}  // namespace herald::replicator
