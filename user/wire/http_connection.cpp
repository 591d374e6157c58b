// SPDX-License-Identifier: Apache-2.0
#include "user/wire/http_connection.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <boost/asio/post.hpp>

#include "user/wire/messages.h"

namespace herald::wire {
namespace {

namespace asio = boost::asio;
using std::chrono::seconds;

// A refused client may still be sending; its bytes are thrown away for so long, because closing
// with unread bytes resets the connection and the refusal is lost with it.
constexpr seconds kGoodbyeTime{2};
constexpr size_t kGoodbyeBytesMax = 8u << 20;
constexpr size_t kDiscardBytes = 16u << 10;
// How long an upload waits for its turn in memory before it is told to come back.
constexpr std::chrono::milliseconds kBudgetPatience{5000};
constexpr uint64_t kBudgetRetrySeconds = 1;
constexpr size_t kWorkBytesMax = 256u << 10;
constexpr size_t kFileChunkBytes = 64u << 10;

constexpr seconds kLogWindow{10};
constexpr unsigned kLogLinesMax = 10;

ServerResponse broken_handler() {
    return error_response(500, kErrorInternal, "the server failed to answer this request");
}

}  // namespace

void RefusalLog::refused(const std::string& address, std::string_view why) {
    const auto now = std::chrono::steady_clock::now();
    if (now - window_start_ > kLogWindow) {
        if (suppressed_) spdlog::info("{} more connections were refused", suppressed_);
        window_start_ = now;
        lines_ = 0;
        suppressed_ = 0;
    }
    if (lines_ == kLogLinesMax) {
        suppressed_++;
        return;
    }
    lines_++;
    spdlog::info("connection from {} refused: {}", address, why);
}

HttpConnection::HttpConnection(ServerShared& server, asio::ip::tcp::socket socket,
                               std::string address)
    : server_(server),
      socket_(std::move(socket)),
      timer_(server.io),
      address_(std::move(address)) {}

asio::awaitable<void> HttpConnection::run() {
    const auto self = shared_from_this();
    if (co_await handshake()) {
        input_.resize(server_.options.header_bytes_max + 4096);
        Next next = Next::keep;
        while (next == Next::keep) {
            ParsedRequest request;
            next = Next::close;
            if (co_await read_head(request)) {
                request.head.peer = peer_;
                next = co_await serve(request);
            }
        }
    }
    co_await goodbye();
    clear_deadline();
    timer_.cancel();
}

void HttpConnection::end() {
    ended_ = true;
    boost::system::error_code ignored;
    socket_.cancel(ignored);
}

asio::awaitable<bool> HttpConnection::handshake() {
    boost::system::error_code ignored;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    auto session = TlsSession::make(*server_.tls, socket_.native_handle());
    if (!session) co_return false;
    tls_ = std::move(*session);
    set_deadline(seconds(server_.options.header_seconds_max));
    std::string why = "no TLS handshake in time";
    for (;;) {
        const Step step = tls_->handshake();
        if (step == Step::done) {
            if (auto peer = tls_->peer()) {
                peer_ = std::move(*peer);
                phase_ = Phase::idle;
                co_return true;
            } else {
                why = peer.error().message;
            }
        }
        if (step == Step::closed) why = "closed before the TLS handshake was complete";
        if (step == Step::failed) why = tls_->failure().message;
        if (step != Step::want_read && step != Step::want_write) break;
        if (!co_await ready(step)) break;
    }
    if (!ended_) server_.log.refused(address_, why);
    server_.refused_tls.fetch_add(1, std::memory_order_relaxed);
    co_return false;
}

// False: nothing to serve; what had to be said was said.
asio::awaitable<bool> HttpConnection::read_head(ParsedRequest& request) {
    phase_ = input_filled_ ? Phase::busy : Phase::idle;
    set_deadline(seconds(input_filled_ ? server_.options.header_seconds_max
                                       : server_.options.idle_seconds_max));
    client_spoke_last_ = input_filled_ != 0;
    if (server_.stopping && !input_filled_) co_return false;
    HeadSearch search;
    HeadStep found;
    while ((found = find_head(ByteView(input_).first(input_filled_),
                              server_.options.header_bytes_max, search)) == HeadStep::need_more) {
        size_t got = 0;
        if (!co_await receive(ByteSpan(input_).subspan(input_filled_), got)) {
            if (expired_ && input_filled_)
                co_await answer(
                    error_response(408, kErrorBadRequest, "the request's head took too long"),
                    false);
            co_return false;
        }
        if (!input_filled_) {
            phase_ = Phase::busy;
            set_deadline(seconds(server_.options.header_seconds_max));
        }
        input_filled_ += got;
        client_spoke_last_ = true;
    }
    server_.requests.fetch_add(1, std::memory_order_relaxed);
    if (found == HeadStep::too_large) {
        co_await answer(error_response(431, kErrorBadRequest,
                                       fmt::format("the request's head is larger than {} bytes",
                                                   server_.options.header_bytes_max)),
                        false);
        co_return false;
    }
    auto parsed = parse_request_head(ByteView(input_).first(search.head_bytes));
    std::memmove(input_.data(), input_.data() + search.head_bytes,
                 input_filled_ - search.head_bytes);
    input_filled_ -= search.head_bytes;
    if (!parsed) {
        co_await answer(error_response(400, kErrorBadRequest, parsed.error().message), false);
        co_return false;
    }
    request = std::move(*parsed);
    co_return true;
}

asio::awaitable<HttpConnection::Next> HttpConnection::serve(const ParsedRequest& request) {
    const RequestHead& head = request.head;
    clear_deadline();
    if (request.chunked)
        co_return co_await answer(
            error_response(411, kErrorBadRequest, "a body must come with its Content-Length"),
            false);

    tl::expected<size_t, ServerResponse> admitted = tl::unexpected(broken_handler());
    auto admit = [&] {
        try {
            admitted = server_.handler.admit(head);
        } catch (const std::exception& e) {
            spdlog::error("{} {}: {}", head.method, head.path, e.what());
        }
    };
    co_await on_worker(admit);
    // A body that is not taken is not read either: the connection ends after the refusal.
    if (!admitted)
        co_return co_await answer(admitted.error(), request.keep_alive && head.content_bytes == 0);
    const size_t allowed = std::min(*admitted, server_.budget.total());
    if (head.content_bytes > allowed)
        co_return co_await answer(
            error_response(413, kErrorBadRequest,
                           fmt::format("a body of {} bytes; at most {} are accepted here",
                                       head.content_bytes, allowed)),
            false);

    Bytes body;
    std::optional<BodyBudget::Share> share;
    if (head.content_bytes) {
        auto granted =
            co_await server_.budget.take(to_string(peer_), head.content_bytes, kBudgetPatience);
        if (!granted)
            co_return co_await answer(
                error_response(503, kErrorBusy, "too many uploads are under way",
                               kBudgetRetrySeconds),
                false);
        share.emplace(std::move(*granted));
        set_deadline(seconds(server_.options.body_seconds_max));
        if (request.expect_continue && input_filled_ == 0 &&
            !co_await send(as_bytes("HTTP/1.1 100 Continue\r\n\r\n"), true))
            co_return Next::close;
        if (!co_await read_body(head.content_bytes, body)) {
            if (expired_)
                co_await answer(error_response(408, kErrorBusy, "the request's body took too long"),
                                false);
            co_return Next::close;
        }
        clear_deadline();
    }

    ServerResponse response = broken_handler();
    auto handle = [&] {
        try {
            response = server_.handler.handle(head, std::move(body));
        } catch (const std::exception& e) {
            spdlog::error("{} {}: {}", head.method, head.path, e.what());
        }
        Bytes().swap(body);
    };
    co_await on_worker(handle);
    share.reset();
    co_return co_await answer(response, request.keep_alive && !server_.stopping,
                              head.method != "HEAD");
}

asio::awaitable<bool> HttpConnection::read_body(size_t bytes, Bytes& body) {
    body.resize_for_overwrite(bytes);
    size_t filled = std::min(input_filled_, bytes);
    if (filled > 0) std::memcpy(body.data(), input_.data(), filled);
    std::memmove(input_.data(), input_.data() + filled, input_filled_ - filled);
    input_filled_ -= filled;
    while (filled < bytes) {
        size_t got = 0;
        if (!co_await receive(ByteSpan(body).subspan(filled), got)) co_return false;
        filled += got;
    }
    co_return true;
}

asio::awaitable<HttpConnection::Next> HttpConnection::answer(const ServerResponse& response,
                                                             bool keep_alive, bool with_body) {
    expired_ = false;
    set_deadline(seconds(server_.options.body_seconds_max));
    const uint64_t bytes = response.file ? response.file->length : response.body.size();
    const std::string head =
        format_response_head(response.status, response.headers, bytes, keep_alive);
    with_body = with_body && bytes != 0 && response.status != 204 && response.status != 304;
    bool sent = co_await send(as_bytes(head), !with_body);
    if (sent && with_body)
        sent =
            response.file ? co_await send_file(*response.file) : co_await send(response.body, true);
    co_return sent&& keep_alive ? Next::keep : Next::close;
}

asio::awaitable<bool> HttpConnection::send_file(const ServerResponse::FileBody& file) {
    Bytes chunk;
    chunk.resize_for_overwrite(std::min<uint64_t>(file.length, kFileChunkBytes));
    (void)::posix_fadvise(file.fd.get(), off_t(file.offset), off_t(file.length),
                          POSIX_FADV_WILLNEED);
    uint64_t done = 0;
    while (done < file.length) {
        const ByteSpan part =
            ByteSpan(chunk).first(std::min<uint64_t>(chunk.size(), file.length - done));
        const uint64_t at = file.offset + done;
        // Cached pages are copied here; what must come from the disk is a worker's business.
        iovec vector{part.data(), part.size()};
        const ssize_t n = ::preadv2(file.fd.get(), &vector, 1, off_t(at), RWF_NOWAIT);
        if (n != ssize_t(part.size())) {
            Result<void> read;
            auto job = [&] { read = read_exact(file.fd.get(), at, part, "a file being sent"); };
            co_await on_worker(job);
            if (!read) {
                spdlog::error("{}; the connection is closed", read.error().message);
                co_return false;
            }
        }
        done += part.size();
        if (!co_await send(part, done == file.length)) co_return false;
    }
    co_return true;
}

asio::awaitable<bool> HttpConnection::send(ByteView bytes, bool last) {
    for (;;) {
        if (expired_ || ended_) co_return false;
        const ByteView piece = bytes.first(std::min(bytes.size(), kWorkBytesMax));
        size_t taken = 0;
        Step step = tls_->write(piece, taken);
        bytes = bytes.subspan(taken);
        if (step == Step::done && bytes.empty() && last) step = tls_->flush();
        if (step == Step::done && bytes.empty()) co_return true;
        if (step == Step::closed || step == Step::failed) co_return false;
        if (step == Step::done)
            co_await share_thread();
        else if (!co_await ready(step))
            co_return false;
    }
}

asio::awaitable<bool> HttpConnection::receive(ByteSpan to, size_t& got) {
    for (;;) {
        if (expired_ || ended_) co_return false;
        const Step step = tls_->read(to, got);
        if (step == Step::done) {
            if ((work_bytes_ += got) > kWorkBytesMax) co_await share_thread();
            co_return true;
        }
        if (step == Step::closed || step == Step::failed) co_return false;
        if (!co_await ready(step)) co_return false;
    }
}

asio::awaitable<void> HttpConnection::goodbye() {
    phase_ = Phase::closing;
    if (!tls_ || ended_) co_return;
    expired_ = false;
    set_deadline(kGoodbyeTime);
    Step step = tls_->close();
    while (step == Step::want_write && co_await ready(step)) step = tls_->flush();
    // After an idle time nothing is on its way that could be lost.
    if (!client_spoke_last_) co_return;
    boost::system::error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    size_t discarded = 0;
    input_.resize(kDiscardBytes);
    while (discarded < kGoodbyeBytesMax && !expired_ && !ended_) {
        const ssize_t n =
            ::recv(socket_.native_handle(), input_.data(), input_.size(), MSG_DONTWAIT);
        if (n > 0) {
            discarded += size_t(n);
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) break;
        if (!co_await ready(Step::want_read)) break;
    }
}

asio::awaitable<bool> HttpConnection::ready(Step step) {
    if (expired_ || ended_) co_return false;
    work_bytes_ = 0;
    boost::system::error_code error;
    co_await socket_.async_wait(step == Step::want_read ? asio::ip::tcp::socket::wait_read
                                                        : asio::ip::tcp::socket::wait_write,
                                asio::redirect_error(asio::use_awaitable, error));
    co_return !error && !expired_ && !ended_;
}

asio::awaitable<void> HttpConnection::share_thread() {
    work_bytes_ = 0;
    co_await asio::post(server_.io, asio::use_awaitable);
}

template <class Job>
asio::awaitable<void> HttpConnection::on_worker(Job& job) {
    auto initiate = [this, &job](auto&& handler) {
        asio::post(*server_.workers, [this, &job, done = std::move(handler)]() mutable {
            job();
            asio::post(server_.io, [done = std::move(done)]() mutable { done(); });
        });
    };
    co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(initiate,
                                                                          asio::use_awaitable);
}

void HttpConnection::set_deadline(seconds after) {
    deadline_ = Clock::now() + after;
    // A watch that wakes too early looks again; one that would wake too late starts anew.
    if (!watching_ || timer_.expiry() > deadline_) watch();
}

void HttpConnection::watch() {
    watching_ = true;
    timer_.expires_at(deadline_);
    timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
        const auto self = weak.lock();
        if (!self || error == asio::error::operation_aborted) return;
        self->watching_ = false;
        if (self->deadline_ == Clock::time_point::max()) return;
        if (Clock::now() < self->deadline_) return self->watch();
        self->expired_ = true;
        boost::system::error_code ignored;
        self->socket_.cancel(ignored);
    });
}

}  // namespace herald::wire
