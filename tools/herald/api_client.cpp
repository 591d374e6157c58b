// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/api_client.h"

#include <cpprest/containerstream.h>
#include <cpprest/http_client.h>
#include <pplx/threadpool.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "tools/herald/interrupt.h"
#include "tools/herald/tls_watch.h"
#include "user/wire/messages.h"

namespace herald::cli {

namespace {

// Between two bytes of an answer; a server under load answers well within.
constexpr std::chrono::seconds kSilenceMax{30};
// The longest list: 4096 segments a page, a million points.
constexpr size_t kListBytesMax = 256u << 20;
// An ErrorBody, which may come in place of a small segment.
constexpr size_t kErrorBytesMax = 64u << 10;
// cpprestsdk would start 40; these only move bytes.
constexpr size_t kThreads = 4;
constexpr int kCancelSteps = 200;
constexpr std::chrono::milliseconds kCancelStep{10};

std::string url_of(const wire::Endpoint& server) {
    const bool v6 = server.host.find(':') != std::string::npos;
    return fmt::format("https://{}{}{}:{}", v6 ? "[" : "", server.host, v6 ? "]" : "", server.port);
}

std::string name_of(const wire::Endpoint& server) {
    return fmt::format("{}:{}", server.host, server.port);
}

tl::unexpected<Error> interrupted_error() {
    return tl::unexpected<Error>(Error{ErrorKind::operator_needed, "interrupted", EINTR});
}

// What a request leaves when it is over; shared by its continuations.
struct Exchange {
    std::promise<Result<Bytes>> promise;
    concurrency::streams::container_buffer<std::vector<uint8_t>> body;
    size_t bytes_max = 0;
    std::string doing;
};

}  // namespace

// Shared with every request under way, so that one that ends late finds it.
struct ApiClient::State : std::enable_shared_from_this<ApiClient::State> {
    State(const OperatorConfig& config, std::shared_ptr<TlsWatch> tls_watch,
          const web::http::client::http_client_config& http)
        : server(name_of(config.server)),
          watch(std::move(tls_watch)),
          client(web::uri(url_of(config.server)), http) {}

    Download start(const std::string& path, size_t bytes_max, std::string doing);
    Result<Bytes> get(const std::string& path, std::string doing);
    // An error of a request that had no answer.
    Error explain(const std::string& doing, const std::string& what, const std::error_code& code);

    std::string server;
    std::shared_ptr<TlsWatch> watch;
    web::http::client::http_client client;
    pplx::cancellation_token_source cancel;
    std::atomic<int> under_way{0};
};

Error ApiClient::State::explain(const std::string& doing, const std::string& what,
                                const std::error_code& code) {
    if (interrupted()) return interrupted_error().value();
    const std::string tls = watch->take_trouble();
    if (!tls.empty())
        return {ErrorKind::operator_needed,
                fmt::format("{}: server {}: {}; compare [server] and [tls] of the configuration "
                            "with what 'herald init' made",
                            doing, server, tls),
                0};
    if (code == std::errc::timed_out)
        return {ErrorKind::retry,
                fmt::format("{}: server {} did not answer within {} s", doing, server,
                            kSilenceMax.count()),
                0};
    // cpprestsdk reports the last address tried as "No route to host", whatever it was.
    if (code == std::errc::host_unreachable)
        return {ErrorKind::retry,
                fmt::format("{}: server {} is not reachable: no connection; is it running, and is "
                            "the port open?",
                            doing, server),
                0};
    return {ErrorKind::retry,
            fmt::format("{}: server {} is not reachable: {}{}", doing, server, what,
                        code ? fmt::format(" ({})", code.message()) : ""),
            0};
}

Download ApiClient::State::start(const std::string& path, size_t bytes_max, std::string doing) {
    auto exchange = std::make_shared<Exchange>();
    exchange->bytes_max = bytes_max;
    exchange->doing = std::move(doing);
    Download download(exchange->promise.get_future());
    web::http::http_request request(web::http::methods::GET);
    request.set_request_uri(path);
    request.set_response_stream(exchange->body.create_ostream());
    ++under_way;
    // The chain ends in an observer that takes every exception, so that none is left unobserved
    // (that would abort the program).
    client.request(request, cancel.get_token())
        .then([exchange](web::http::http_response response) {
            const bool bounded = response.headers().has("Content-Length");
            const bool ok = response.status_code() / 100 == 2;
            const size_t most = ok ? exchange->bytes_max : kErrorBytesMax;
            if (!bounded || response.headers().content_length() > most)
                throw std::length_error("the answer is larger than it may be");
            return response.content_ready();
        })
        .then([self = shared_from_this(), exchange](pplx::task<web::http::http_response> task) {
            try {
                const web::http::http_response response = task.get();
                wire::HttpResponse answer;
                answer.status = response.status_code();
                const auto& body = exchange->body.collection();
                answer.body.resize(body.size());
                if (!body.empty()) std::memcpy(answer.body.data(), body.data(), body.size());
                if (answer.status / 100 == 2) {
                    exchange->promise.set_value(std::move(answer.body));
                } else {
                    Error error = wire::to_error(answer, exchange->doing);
                    if (answer.status == 404) error.sys = ENOENT;
                    if (answer.status == 403)
                        error.message +=
                            "; [tls] of the configuration must name an operator's certificate";
                    exchange->promise.set_value(tl::unexpected<Error>(std::move(error)));
                }
            } catch (const web::http::http_exception& error) {
                exchange->promise.set_value(tl::unexpected<Error>(
                    self->explain(exchange->doing, error.what(), error.error_code())));
            } catch (const std::length_error& error) {
                exchange->promise.set_value(fail(ErrorKind::corrupt, "{}: server {}: {}",
                                                 exchange->doing, self->server, error.what()));
            } catch (const std::exception& error) {
                exchange->promise.set_value(
                    tl::unexpected<Error>(self->explain(exchange->doing, error.what(), {})));
            }
            --self->under_way;
        });
    return download;
}

Result<Bytes> ApiClient::State::get(const std::string& path, std::string doing) {
    return start(path, kListBytesMax, std::move(doing)).wait();
}

Result<Bytes> Download::wait() {
    // Short steps: a signal does not end a wait on a future.
    while (future_.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready)
        if (interrupted()) return interrupted_error();
    return future_.get();
}

Result<std::unique_ptr<ApiClient>> ApiClient::make(const OperatorConfig& config) {
    // Loaded twice on purpose: this one says in our words which file is missing, unreadable, open
    // to others or does not fit; inside cpprestsdk's callback it is too late to say anything.
    if (auto files = wire::TlsContext::load(config.tls, wire::TlsSide::client); !files)
        return pass(files);
    static const bool pool = [] {
        crossplat::threadpool::initialize_with_threads(kThreads);
        return true;
    }();
    (void)pool;
    auto watch = std::make_shared<TlsWatch>();
    web::http::client::http_client_config http;
    http.set_timeout(kSilenceMax);
    http.set_max_redirects(0);
    http.set_ssl_context_callback([watch, tls = config.tls](boost::asio::ssl::context& context) {
        if (auto r = watch->configure(context.native_handle(), tls); !r)
            throw web::http::http_exception(r.error().message);
    });
    try {
        return std::unique_ptr<ApiClient>(
            new ApiClient(std::make_shared<State>(config, std::move(watch), http)));
    } catch (const std::exception& error) {
        return fail(ErrorKind::operator_needed, "server {}: {}", name_of(config.server),
                    error.what());
    }
}

ApiClient::ApiClient(std::shared_ptr<State> state) : state_(std::move(state)) {}

ApiClient::~ApiClient() {
    state_->cancel.cancel();
    // Cancelled requests end within milliseconds; the bound is for a bug in what we stand on.
    for (int i = 0; i < kCancelSteps && state_->under_way > 0; ++i)
        std::this_thread::sleep_for(kCancelStep);
}

Result<std::vector<wire::DiskInfo>> ApiClient::disks() {
    auto body = state_->get("/v1/disks", "listing disks");
    if (!body) return pass(body);
    return wire::decode_disks(as_text(*body));
}

Result<std::vector<wire::PointInfo>> ApiClient::points(const Uuid& disk, bool refused_too) {
    const std::string query = refused_too ? fmt::format("?refused={}", HERALD_LIST_ROWS_MAX) : "";
    auto body = state_->get(fmt::format("/v1/disks/{}/points{}", to_string(disk), query),
                            fmt::format("listing the points of disk {}", to_string(disk)));
    if (!body) return pass(body);
    return wire::decode_points(as_text(*body));
}

Result<std::vector<wire::SegmentInfo>> ApiClient::segments(const Uuid& disk, uint64_t after,
                                                           size_t limit) {
    auto body = state_->get(
        fmt::format("/v1/disks/{}/segments?after={}&limit={}", to_string(disk), after, limit),
        fmt::format("listing the segments of disk {}", to_string(disk)));
    if (!body) return pass(body);
    return wire::decode_segments(as_text(*body));
}

Result<wire::ServerStatus> ApiClient::status() {
    auto body = state_->get("/v1/status", "asking for the server's status");
    if (!body) return pass(body);
    return wire::decode_server_status(as_text(*body));
}

Download ApiClient::start_segment(const Uuid& disk, const wire::SegmentInfo& segment) {
    return state_->start(
        fmt::format("/v1/disks/{}/segments/{}", to_string(disk), segment.first_position),
        size_t(segment.bytes),
        fmt::format("reading segment {} (positions {} to {}) of disk {}",
                    to_string(segment.segment), segment.first_position, segment.last_position,
                    to_string(disk)));
}

}  // namespace herald::cli
