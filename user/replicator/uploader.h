// SPDX-License-Identifier: Apache-2.0
// Uploader: the threads that make a Session's requests, one HTTPS connection each.
// Promise: answers to a session that is no longer the current one change nothing.
// Callers: the disk's thread; view() from any. on_change is called from the upload threads after
// every event; it must not block. vouched likewise, under the lock: whether the disk is looked
// after. Owns: threads, connections, the session (under its lock) and its segments.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "user/replicator/session.h"
#include "user/wire/http_client.h"

namespace herald::replicator {

struct UploaderOptions {
    wire::Endpoint server;
    std::shared_ptr<const wire::TlsContext> tls;
    Uuid disk;
    SessionOptions session;
};

class Uploader {
  public:
    Uploader(UploaderOptions options, std::function<void()> on_change,
             std::function<bool()> vouched);
    ~Uploader();

    // Replaces the session; what the one before held is dropped.
    void begin(const wire::SessionRequest& request);
    void add(SegmentPtr segment);
    void end(const Failure& cause);

    struct View {
        std::optional<wire::SessionGrant> grant;
        std::optional<Failure> ended;
        std::optional<Failure> trouble;
        std::chrono::milliseconds trouble_age{0};
        uint64_t received = 0;
        uint64_t stored = 0;
        uint64_t unstored_bytes = 0;
        uint64_t sent_bytes = 0;  // since the start, what the server acknowledged
        uint64_t raw_bytes = 0;   // the same before compression
    };
    View view() const;

    // A GET on the caller's thread, on a connection of its own: any 2xx body. Passing failures
    // are errors of kind retry.
    Result<Bytes> get(const std::string& target, size_t body_bytes_max);
    // Makes get() and the uploads under way return soon; nothing is sent afterwards.
    void stop();

  private:
    void work(size_t index);
    void ask(wire::HttpClient& client, std::unique_lock<std::mutex>& lock, uint64_t ticket);
    void look(wire::HttpClient& client, std::unique_lock<std::mutex>& lock,
              const Session::Look& action);
    // What came of a segment sent, or of a look. False when nothing was acknowledged.
    bool answered(uint64_t ticket, const Result<wire::HttpResponse>& response);
    void send(wire::HttpClient& client, std::unique_lock<std::mutex>& lock,
              const Session::Send& action);

    UploaderOptions options_;
    std::function<void()> on_change_;
    std::function<bool()> vouched_;
    std::vector<std::unique_ptr<wire::HttpClient>> clients_;  // one per thread, then get()'s
    mutable std::mutex lock_;                                 // guards all below
    std::condition_variable wake_;
    bool stop_ = false;
    uint64_t generation_ = 0;
    wire::SessionRequest request_;
    std::optional<Session> session_;
    uint64_t sent_bytes_ = 0;
    uint64_t raw_bytes_ = 0;
    std::vector<std::thread> threads_;
};

}  // namespace herald::replicator
