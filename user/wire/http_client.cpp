// SPDX-License-Identifier: Apache-2.0
#include "user/wire/http_client.h"

#include <poll.h>

#include "user/base/file.h"
#include "user/wire/http_head.h"
#include "user/wire/socket_wait.h"
#include "user/wire/tls_session.h"

namespace herald::wire {
namespace {

constexpr size_t kResponseHeadBytesMax = 16384;
constexpr size_t kInterimResponsesMax = 8;

}  // namespace

struct HttpClient::State {
    Endpoint server;
    std::shared_ptr<const TlsContext> tls_context;
    SocketWait waiter;
    Connector connector;
    Fd socket;
    std::unique_ptr<TlsSession> tls;

    // Of the send() under way.
    SocketWait::Clock::time_point deadline;
    Bytes head;              // received, not yet consumed; the head and maybe some of the body
    size_t head_filled = 0;  // of head
    bool sent_whole = false;

    void drop() {
        tls.reset();
        socket.reset();
    }
    tl::unexpected<Error> lost(Error error) {
        drop();
        error.message = fmt::format("server {}:{}: {}", server.host, server.port, error.message);
        return tl::unexpected<Error>(std::move(error));
    }

    Result<short> wait(short events, const char* doing) {
        return waiter.wait(socket.get(), events, deadline, doing);
    }
    Error ended(Step step, const char* doing) const {
        if (step == Step::failed) return tls->failure();
        return Error{ErrorKind::retry, fmt::format("{}: the server closed the connection", doing),
                     0};
    }

    Result<void> connect();
    bool still_open();
    Result<void> transmit(ByteView request_head, ByteView body);
    Result<bool> transmit_part(ByteView bytes, bool last);
    Result<bool> answered_early();
    Result<void> receive_some(const char* doing);
    Result<ParsedResponse> receive_head();
    Result<Bytes> receive_body(uint64_t bytes);
};

Result<void> HttpClient::State::connect() {
    auto connected = connector.connect(server.host, server.port, waiter, deadline);
    if (!connected) return pass(connected);
    socket = std::move(*connected);
    auto session = TlsSession::make(*tls_context, socket.get(), server.host);
    if (!session) return pass(session);
    tls = std::move(*session);
    for (;;) {
        const Step step = tls->handshake();
        if (step == Step::done) return {};
        if (step == Step::closed || step == Step::failed)
            return tl::unexpected<Error>(ended(step, "TLS handshake"));
        auto ready = wait(step == Step::want_read ? POLLIN : POLLOUT, "TLS handshake");
        if (!ready) return pass(ready);
    }
}

// A server may close an idle connection at any time: nothing of the next request is sent yet, so
// a new connection is no repeat. Unasked bytes mean the two sides disagree about where they are.
bool HttpClient::State::still_open() {
    std::byte unasked[1];
    size_t got = 0;
    return tls->read(unasked, got) == Step::want_read;
}

// True: the server answered before it had everything; what it said is in `head`.
Result<bool> HttpClient::State::answered_early() {
    const Step step = tls->read(ByteSpan(head).subspan(head_filled), head_filled);
    if (step == Step::done) return true;
    if (step == Step::want_read || step == Step::want_write) return false;
    return tl::unexpected<Error>(ended(step, "sending the request"));
}

// False: there is no use in sending more.
Result<bool> HttpClient::State::transmit_part(ByteView bytes, bool last) {
    for (;;) {
        size_t taken = 0;
        Step step = tls->write(bytes, taken);
        bytes = bytes.subspan(taken);
        if (step == Step::done && last) step = tls->flush();
        if (step == Step::done) return true;
        if (step == Step::closed || step == Step::failed) {
            // The reason, an answer or an alert, may have arrived before the end.
            const Error error = ended(step, "sending the request");
            auto early = answered_early();
            if (!early) return pass(early);
            if (!*early) return tl::unexpected<Error>(error);
            return false;
        }
        auto ready = wait(POLLIN | POLLOUT, "sending the request");
        if (!ready) return pass(ready);
        if (*ready & ~POLLOUT) {
            auto early = answered_early();
            if (!early) return pass(early);
            if (*early) return false;
        }
    }
}

Result<void> HttpClient::State::transmit(ByteView request_head, ByteView body) {
    auto going = transmit_part(request_head, body.empty());
    if (going && *going && !body.empty()) going = transmit_part(body, true);
    if (!going) return pass(going);
    sent_whole = *going;
    return {};
}

Result<void> HttpClient::State::receive_some(const char* doing) {
    for (;;) {
        size_t got = 0;
        const Step step = tls->read(ByteSpan(head).subspan(head_filled), got);
        head_filled += got;
        if (step == Step::done) return {};
        if (step == Step::closed || step == Step::failed)
            return tl::unexpected<Error>(ended(step, doing));
        auto ready = wait(step == Step::want_read ? POLLIN : POLLOUT, doing);
        if (!ready) return pass(ready);
    }
}

Result<ParsedResponse> HttpClient::State::receive_head() {
    for (size_t interim = 0; interim <= kInterimResponsesMax; interim++) {
        HeadSearch search;
        for (;;) {
            const HeadStep found =
                find_head(ByteView(head).first(head_filled), kResponseHeadBytesMax, search);
            if (found == HeadStep::done) break;
            if (found != HeadStep::need_more)
                return fail(ErrorKind::corrupt, "the answer's head is larger than {} bytes",
                            kResponseHeadBytesMax);
            auto more = receive_some("waiting for the answer");
            if (!more) return pass(more);
        }
        auto parsed = parse_response_head(ByteView(head).first(search.head_bytes));
        std::memmove(head.data(), head.data() + search.head_bytes, head_filled - search.head_bytes);
        head_filled -= search.head_bytes;
        if (!parsed || parsed->status >= 200) return parsed;
    }
    return fail(ErrorKind::corrupt, "the server sent only interim answers");
}

Result<Bytes> HttpClient::State::receive_body(uint64_t bytes) {
    Bytes body;
    body.resize_for_overwrite(bytes);
    size_t filled = std::min<uint64_t>(head_filled, bytes);
    if (filled > 0) std::memcpy(body.data(), head.data(), filled);
    std::memmove(head.data(), head.data() + filled, head_filled - filled);
    head_filled -= filled;
    while (filled < bytes) {
        size_t got = 0;
        const Step step = tls->read(ByteSpan(body).subspan(filled), got);
        filled += got;
        if (step == Step::done) continue;
        if (step == Step::closed || step == Step::failed)
            return tl::unexpected<Error>(ended(step, "reading the answer"));
        auto ready = wait(step == Step::want_read ? POLLIN : POLLOUT, "reading the answer");
        if (!ready) return pass(ready);
    }
    return body;
}

HttpClient::HttpClient(Endpoint server, std::shared_ptr<const TlsContext> tls)
    : state_(std::make_unique<State>()) {
    state_->server = std::move(server);
    state_->tls_context = std::move(tls);
}

HttpClient::~HttpClient() {
    if (state_->tls) (void)state_->tls->close();
}

void HttpClient::abort() { state_->waiter.trip(); }

Result<HttpResponse> HttpClient::send(const HttpRequest& request,
                                      std::chrono::milliseconds deadline, size_t body_bytes_max) {
    State& s = *state_;
    auto request_head = format_request_head(request, s.server);
    if (!request_head) return pass(request_head);
    if (s.waiter.tripped()) return s.lost(Error{ErrorKind::retry, "stopped on request", 0});
    s.deadline = SocketWait::Clock::now() + deadline;
    s.head.resize(kResponseHeadBytesMax + 4096);
    s.head_filled = 0;
    s.sent_whole = false;

    if (s.tls && !s.still_open()) s.drop();
    if (!s.tls)
        if (auto connected = s.connect(); !connected) return s.lost(connected.error());
    if (auto sent = s.transmit(as_bytes(*request_head), request.body); !sent)
        return s.lost(sent.error());
    auto parsed = s.receive_head();
    if (!parsed) return s.lost(parsed.error());

    const bool bodyless =
        parsed->status == 204 || parsed->status == 304 || request.method == "HEAD";
    if (!bodyless && !parsed->content_bytes)
        return s.lost(Error{ErrorKind::corrupt, "the answer does not say how long it is", 0});
    const uint64_t bytes = bodyless ? 0 : *parsed->content_bytes;
    if (bytes > body_bytes_max)
        return s.lost(Error{ErrorKind::operator_needed,
                            fmt::format("{} {}: an answer of {} bytes, the limit is {}",
                                        request.method, request.target, bytes, body_bytes_max),
                            0});
    auto body = s.receive_body(bytes);
    if (!body) return s.lost(body.error());
    // What follows the answer would be taken for the next one's.
    if (!parsed->keep_alive || !s.sent_whole || s.head_filled != 0) s.drop();
    return HttpResponse{parsed->status, std::move(parsed->headers), std::move(*body)};
}

}  // namespace herald::wire
