// SPDX-License-Identifier: Apache-2.0
#include "user/wire/http_head.h"

#include <algorithm>
#include <limits>
#include <utility>  // before Asio 1.74, which forgets it

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>

namespace herald::wire {
namespace {

namespace http = boost::beast::http;

constexpr std::string_view kHeadEnd = "\r\n\r\n";
constexpr size_t kHeadersMax = 100;

std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result)
        if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    return result;
}

bool has_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

Result<std::string> percent_decode(std::string_view text) {
    std::string decoded;
    decoded.reserve(text.size());
    for (size_t i = 0; i < text.size(); i++) {
        char c = text[i];
        if (c == '%') {
            const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
            const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return fail(ErrorKind::corrupt, "malformed percent-encoding in the target");
            c = char(high * 16 + low);
            i += 2;
        }
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            return fail(ErrorKind::corrupt, "control character in the target");
        decoded += c;
    }
    return decoded;
}

Result<void> split_target(std::string_view target, RequestHead& head) {
    if (target.empty() || target[0] != '/')
        return fail(ErrorKind::corrupt, "the target is not a path");
    const size_t mark = target.find('?');
    auto path = percent_decode(target.substr(0, mark));
    if (!path) return pass(path);
    head.path = std::move(*path);
    if (mark == std::string_view::npos) return {};
    std::string_view rest = target.substr(mark + 1);
    while (!rest.empty()) {
        const size_t end = std::min(rest.find('&'), rest.size());
        const std::string_view pair = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (pair.empty()) continue;
        const size_t equals = std::min(pair.find('='), pair.size());
        auto name = percent_decode(pair.substr(0, equals));
        if (!name) return pass(name);
        auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())));
        if (!value) return pass(value);
        if (!head.query.emplace(std::move(*name), std::move(*value)).second)
            return fail(ErrorKind::corrupt, "a query parameter is given twice");
    }
    return {};
}

// Runs Beast's parser over one whole head.
template <class Parser>
Result<void> run(Parser& parser, ByteView head) {
    // The caller's limit is the handler's answer, not a constant. (No limit at all would be
    // boost::none, which Beast 1.74 takes for less than any length.)
    parser.body_limit(std::numeric_limits<uint64_t>::max());
    parser.header_limit(static_cast<uint32_t>(head.size() + 1));
    boost::system::error_code error;
    const size_t used = parser.put(boost::asio::buffer(head.data(), head.size()), error);
    if (error && error != http::error::need_more)
        return fail(ErrorKind::corrupt, "malformed HTTP head: {}", error.message());
    if (!parser.is_header_done() || used != head.size())
        return fail(ErrorKind::corrupt, "malformed HTTP head");
    return {};
}

template <class Fields>
Result<Headers> collect(const Fields& fields, bool& framed_twice) {
    Headers headers;
    size_t count = 0;
    for (const auto& field : fields) {
        if (++count > kHeadersMax)
            return fail(ErrorKind::corrupt, "more than {} header fields", kHeadersMax);
        const auto name = field.name_string();
        const auto value = field.value();
        auto [at, fresh] = headers.emplace(lower({name.data(), name.size()}),
                                           std::string(value.data(), value.size()));
        if (fresh) continue;
        if (at->first == "content-length" || at->first == "transfer-encoding") framed_twice = true;
        // RFC 9110, 5.3: fields of one name are one list.
        at->second.append(", ").append(value.data(), value.size());
    }
    if (headers.count("content-length") && headers.count("transfer-encoding")) framed_twice = true;
    return headers;
}

}  // namespace

HeadStep find_head(ByteView bytes, size_t head_bytes_max, HeadSearch& search) {
    // A line end before the request line is allowed (RFC 9112, 2.2) but nobody needs it here.
    const std::string_view text = as_text(bytes);
    const size_t from = search.searched >= kHeadEnd.size() ? search.searched - kHeadEnd.size() : 0;
    const size_t at = text.find(kHeadEnd, from);
    search.searched = text.size();
    if (at == std::string_view::npos)
        return text.size() >= head_bytes_max ? HeadStep::too_large : HeadStep::need_more;
    search.head_bytes = at + kHeadEnd.size();
    return search.head_bytes > head_bytes_max ? HeadStep::too_large : HeadStep::done;
}

Result<ParsedRequest> parse_request_head(ByteView bytes) {
    http::request_parser<http::empty_body> parser;
    if (auto parsed = run(parser, bytes); !parsed) return pass(parsed);
    const auto& message = parser.get();
    ParsedRequest request;
    bool framed_twice = false;
    auto headers = collect(message, framed_twice);
    if (!headers) return pass(headers);
    if (framed_twice) return fail(ErrorKind::corrupt, "the length of the body is given twice");
    request.head.headers = std::move(*headers);
    request.head.method.assign(message.method_string().data(), message.method_string().size());
    if (auto split = split_target({message.target().data(), message.target().size()}, request.head);
        !split)
        return pass(split);
    request.keep_alive = message.keep_alive();
    request.chunked = request.head.headers.count("transfer-encoding") != 0;
    request.has_length = request.head.headers.count("content-length") != 0;
    if (const auto length = parser.content_length()) request.head.content_bytes = *length;
    const auto expect = request.head.headers.find("expect");
    request.expect_continue =
        expect != request.head.headers.end() && lower(expect->second) == "100-continue";
    return request;
}

Result<ParsedResponse> parse_response_head(ByteView bytes) {
    http::response_parser<http::empty_body> parser;
    parser.skip(true);  // the body is read by the caller, straight into its place
    if (auto parsed = run(parser, bytes); !parsed) return pass(parsed);
    const auto& message = parser.get();
    ParsedResponse response;
    bool framed_twice = false;
    auto headers = collect(message, framed_twice);
    if (!headers) return pass(headers);
    if (framed_twice) return fail(ErrorKind::corrupt, "the length of the body is given twice");
    response.headers = std::move(*headers);
    response.status = message.result_int();
    response.keep_alive = message.keep_alive();
    response.chunked = response.headers.count("transfer-encoding") != 0;
    if (const auto length = parser.content_length()) response.content_bytes = *length;
    return response;
}

Result<std::string> format_request_head(const HttpRequest& request, const Endpoint& server) {
    const bool plain = !has_control(request.method) && !has_control(request.target) &&
                       request.method.find(' ') == std::string::npos &&
                       request.target.find(' ') == std::string::npos &&
                       request.target.starts_with('/') && !request.method.empty();
    if (!plain)
        return fail(ErrorKind::operator_needed, "'{} {}' is not a request", request.method,
                    request.target);
    const bool numeric6 = server.host.find(':') != std::string::npos;
    std::string head =
        fmt::format("{} {} HTTP/1.1\r\nhost: {}{}{}:{}\r\n", request.method, request.target,
                    numeric6 ? "[" : "", server.host, numeric6 ? "]" : "", server.port);
    for (const auto& [name, value] : request.headers) {
        if (name.empty() || has_control(name) || has_control(value) ||
            name.find_first_of(" :") != std::string::npos)
            return fail(ErrorKind::operator_needed, "'{}: {}' is not a header", name, value);
        if (name != "content-length" && name != "host")
            head += fmt::format("{}: {}\r\n", name, value);
    }
    if (!request.body.empty() || (request.method != "GET" && request.method != "DELETE"))
        head += fmt::format("content-length: {}\r\n", request.body.size());
    head += "\r\n";
    return head;
}

std::string format_response_head(unsigned status, const Headers& headers, uint64_t content_bytes,
                                 bool keep_alive) {
    const auto reason = http::obsolete_reason(static_cast<http::status>(status));
    std::string head =
        fmt::format("HTTP/1.1 {} {}\r\n", status, std::string_view(reason.data(), reason.size()));
    for (const auto& [name, value] : headers)
        if (!has_control(name) && !has_control(value) && name != "content-length" &&
            name != "connection" && name != "transfer-encoding")
            head += fmt::format("{}: {}\r\n", name, value);
    if (status >= 200 && status != 204 && status != 304)
        head += fmt::format("content-length: {}\r\n", content_bytes);
    if (!keep_alive) head += "connection: close\r\n";
    head += "\r\n";
    return head;
}

}  // namespace herald::wire
