// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/uploader.h"

#include <random>

#include "user/base/crash_point.h"
#include "user/base/digest.h"
#include "user/wire/messages.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::milliseconds kAskDeadline{15'000};
// A segment of 16 MiB at 4 Mbit/s is under way for half a minute.
constexpr std::chrono::milliseconds kSendDeadline{60'000};
constexpr std::chrono::milliseconds kGetDeadline{30'000};
constexpr size_t kAnswerBytesMax = 65536;

uint64_t now_ms() {
    return uint64_t(std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::steady_clock::now().time_since_epoch())
                        .count());
}

double uniform() {
    thread_local std::mt19937_64 generator{std::random_device{}()};
    return std::uniform_real_distribution<double>(0, 1)(generator);
}

Failure failure_of_error(const Error& error) {
    Failure failure;
    failure.kind =
        error.kind == ErrorKind::operator_needed ? FailureKind::refused : FailureKind::unreachable;
    failure.message = error.message;
    return failure;
}

bool is_success(const wire::HttpResponse& response) { return response.status / 100 == 2; }

}  // namespace

Uploader::Uploader(UploaderOptions options, std::function<void()> on_change,
                   std::function<bool()> vouched)
    : options_(std::move(options)), on_change_(std::move(on_change)), vouched_(std::move(vouched)) {
    for (unsigned i = 0; i < options_.session.uploads_max + 1; ++i) {
        clients_.push_back(std::make_unique<wire::HttpClient>(options_.server, options_.tls));
    }
    for (unsigned i = 0; i < options_.session.uploads_max; ++i) {
        threads_.emplace_back([this, i] { work(i); });
    }
}

Uploader::~Uploader() {
    stop();
    for (std::thread& thread : threads_) thread.join();
}

void Uploader::stop() {
    {
        const std::lock_guard lock(lock_);
        stop_ = true;
    }
    wake_.notify_all();
    for (const auto& client : clients_) client->abort();
}

void Uploader::begin(const wire::SessionRequest& request) {
    {
        const std::lock_guard lock(lock_);
        ++generation_;
        request_ = request;
        session_.emplace(options_.session, request.session);
    }
    wake_.notify_all();
}

void Uploader::add(SegmentPtr segment) {
    {
        const std::lock_guard lock(lock_);
        if (session_) session_->add(std::move(segment));
    }
    wake_.notify_all();
}

void Uploader::end(const Failure& cause) {
    const std::lock_guard lock(lock_);
    if (session_ && !session_->ended()) session_->end(cause);
}

Uploader::View Uploader::view() const {
    const std::lock_guard lock(lock_);
    View view;
    view.sent_bytes = sent_bytes_;
    view.raw_bytes = raw_bytes_;
    if (!session_) return view;
    view.grant = session_->grant();
    view.ended = session_->ended();
    view.trouble = session_->trouble();
    if (view.trouble) {
        view.trouble_age = std::chrono::milliseconds(now_ms() - session_->trouble_since_ms());
    }
    view.received = session_->received();
    view.stored = session_->stored();
    view.unstored_bytes = session_->unstored_bytes();
    return view;
}

void Uploader::work(size_t index) {
    std::unique_lock lock(lock_);
    while (!stop_) {
        const uint64_t now = now_ms();
        auto action = session_ ? session_->next(now, vouched_()) : std::nullopt;
        if (!action) {
            const auto wake = session_ ? session_->wake_ms() : std::nullopt;
            if (wake && *wake > now) {
                wake_.wait_for(lock, std::chrono::milliseconds(*wake - now));
            } else {
                wake_.wait(lock);
            }
            continue;
        }
        if (const auto* asked = std::get_if<Session::Ask>(&*action)) {
            ask(*clients_[index], lock, asked->ticket);
        } else if (const auto* looked = std::get_if<Session::Look>(&*action)) {
            look(*clients_[index], lock, *looked);
        } else {
            send(*clients_[index], lock, std::get<Session::Send>(*action));
        }
        // An answer may open the window, or shorten the wait, of the other threads.
        wake_.notify_all();
        lock.unlock();
        on_change_();
        lock.lock();
    }
}

void Uploader::ask(wire::HttpClient& client, std::unique_lock<std::mutex>& lock, uint64_t ticket) {
    const uint64_t generation = generation_;
    const std::string body = wire::encode(request_);
    wire::HttpRequest request;
    request.method = "POST";
    request.target = fmt::format("/v1/disks/{}/session", to_string(options_.disk));
    request.headers["content-type"] = "application/json";
    request.body = as_bytes(body);
    lock.unlock();
    auto response = client.send(request, kAskDeadline, kAnswerBytesMax);
    lock.lock();
    if (generation != generation_) return;
    if (!response) {
        session_->failed(ticket, failure_of_error(response.error()), now_ms(), uniform());
        return;
    }
    if (!is_success(*response)) {
        session_->failed(ticket, failure_of(response->status, wire::error_of(*response)), now_ms(),
                         uniform());
        return;
    }
    auto grant = wire::decode_session_grant(as_text(response->body));
    if (!grant) {
        session_->failed(ticket, failure_of_error(grant.error()), now_ms(), uniform());
        return;
    }
    session_->granted(ticket, *grant);
}

void Uploader::send(wire::HttpClient& client, std::unique_lock<std::mutex>& lock,
                    const Session::Send& action) {
    const uint64_t generation = generation_;
    const hrl::Segment& segment = *action.segment;
    lock.unlock();
    wire::HttpRequest request;
    request.method = "PUT";
    request.target = fmt::format("/v1/disks/{}/segments/{}", to_string(options_.disk),
                                 segment.header.first_position);
    request.headers["content-type"] = "application/octet-stream";
    request.headers[wire::kHeaderEpoch] = std::to_string(action.epoch);
    request.headers[wire::kHeaderDigest] = to_hex(xxh3_128(segment.bytes).bytes);
    request.body = segment.bytes;
    auto response = client.send(request, kSendDeadline, kAnswerBytesMax);
    crash_point("replicator.segment_sent");
    lock.lock();
    if (generation != generation_) return;
    if (!answered(action.ticket, response)) return;
    sent_bytes_ += segment.bytes.size();
    raw_bytes_ += segment.raw_bytes;
}

void Uploader::look(wire::HttpClient& client, std::unique_lock<std::mutex>& lock,
                    const Session::Look& action) {
    const uint64_t generation = generation_;
    lock.unlock();
    wire::HttpRequest request;
    request.target = fmt::format("/v1/disks/{}/head", to_string(options_.disk));
    request.headers[wire::kHeaderEpoch] = std::to_string(action.epoch);
    auto response = client.send(request, kAskDeadline, kAnswerBytesMax);
    lock.lock();
    if (generation == generation_) (void)answered(action.ticket, response);
}

bool Uploader::answered(uint64_t ticket, const Result<wire::HttpResponse>& response) {
    const auto failed = [&](const Failure& failure) {
        session_->failed(ticket, failure, now_ms(), uniform());
        return false;
    };
    if (!response) return failed(failure_of_error(response.error()));
    if (!is_success(*response)) {
        return failed(failure_of(response->status, wire::error_of(*response)));
    }
    auto ack = wire::decode_segment_ack(as_text(response->body));
    if (!ack) return failed(failure_of_error(ack.error()));
    session_->acked(ticket, *ack);
    return true;
}

Result<Bytes> Uploader::get(const std::string& target, size_t body_bytes_max) {
    {
        const std::lock_guard lock(lock_);
        if (stop_) return fail(ErrorKind::retry, "stopping");
    }
    wire::HttpRequest request;
    request.target = target;
    auto response = clients_.back()->send(request, kGetDeadline, body_bytes_max);
    if (!response) return pass(response);
    if (!is_success(*response)) {
        return tl::unexpected<Error>(wire::to_error(*response, "get " + target));
    }
    return std::move(response->body);
}

}  // namespace herald::replicator
