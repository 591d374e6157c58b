// SPDX-License-Identifier: Apache-2.0
// ApiClient talks to a process server's management API with an operator's certificate: TLS 1.3,
// the server's certificate checked against the site's authority alone and against the host asked.
// cpprestsdk is behind api_client.cpp alone.
// Promise: every call ends by its deadline or soon after Ctrl-C; no answer is believed beyond the
// size it may have. Nothing is retried here.
// Callers: one thread at a time. Owns: its connections.
// Failure: retry when the server does not answer; operator_needed when either side refuses the
// other's certificate, with which side and why; ENOENT when the server knows no such thing.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "tools/herald/config.h"
#include "user/base/bytes.h"
#include "user/wire/message_structs.h"

namespace herald::cli {

// A request under way; wait() is called once.
class Download {
  public:
    explicit Download(std::future<Result<Bytes>> future) : future_(std::move(future)) {}
    // Returns early with EINTR after Ctrl-C; the request then ends by itself.
    Result<Bytes> wait();

  private:
    std::future<Result<Bytes>> future_;
};

class ApiClient {
  public:
    static Result<std::unique_ptr<ApiClient>> make(const OperatorConfig& config);
    // Cancels what is under way.
    ~ApiClient();

    Result<std::vector<wire::DiskInfo>> disks();
    Result<std::vector<wire::PointInfo>> points(const Uuid& disk, bool refused_too = false);
    Result<std::vector<wire::SegmentInfo>> segments(const Uuid& disk, uint64_t after, size_t limit);
    Result<wire::ServerStatus> status();
    // Starts a download of one segment; several may be under way.
    Download start_segment(const Uuid& disk, const wire::SegmentInfo& segment);

  private:
    struct State;
    explicit ApiClient(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

}  // namespace herald::cli
