// SPDX-License-Identifier: Apache-2.0
#include "user/wire/messages.h"

#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "herald/limits.h"

namespace herald::wire {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
constexpr size_t kWordBytesMax = 64;        // codes, kinds, states, versions
constexpr size_t kSentenceBytesMax = 4096;  // messages and causes
// A list of a day's points or of a disk's segments, page by page, is far below this.
constexpr size_t kListBytesMax = 32u << 20;
constexpr size_t kMessageBytesMax = 64u << 10;

// Each message lists its fields once; the same list writes and reads it.
class Writer {
  public:
    explicit Writer(Json& to) : to_(to) {}
    void id(const char* name, const Uuid& value) { to_[name] = to_string(value); }
    void text(const char* name, const std::string& value, size_t, size_t) { to_[name] = value; }
    void digest(const char* name, const std::string& value) { to_[name] = value; }
    void flag(const char* name, const bool& value) { to_[name] = value; }
    template <class T>
    void number(const char* name, const T& value, uint64_t, uint64_t) {
        to_[name] = value;
    }

  private:
    Json& to_;
};

bool is_printable(std::string_view text) {
    // Control characters would reach a terminal or a log when a person lists disks.
    for (const unsigned char c : text)
        if (c < 0x20 || c == 0x7f) return false;
    return true;
}

bool is_hex(std::string_view text) {
    for (const char c : text)
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
    return true;
}

class Reader {
  public:
    explicit Reader(const Json& from) : from_(from) {}

    void id(const char* name, Uuid& value) {
        const std::string* text = string(name);
        if (!text) return;
        auto parsed = Uuid::parse(*text);
        if (!parsed) return wrong(name, "not a UUID");
        value = *parsed;
    }
    void text(const char* name, std::string& value, size_t bytes_min, size_t bytes_max) {
        const std::string* text = string(name);
        if (!text) return;
        if (text->size() < bytes_min) return wrong(name, "too short");
        if (text->size() > bytes_max) return wrong(name, "too long");
        if (!is_printable(*text)) return wrong(name, "has control characters");
        value = *text;
    }
    void digest(const char* name, std::string& value) {
        const std::string* text = string(name);
        if (!text) return;
        if (text->size() != 32 || !is_hex(*text)) return wrong(name, "not 32 hex digits");
        value = *text;
    }
    void flag(const char* name, bool& value) {
        const Json* found = field(name);
        if (!found) return;
        if (!found->is_boolean()) return wrong(name, "not true or false");
        value = *found->get_ptr<const bool*>();
    }
    template <class T>
    void number(const char* name, T& value, uint64_t least, uint64_t most) {
        const Json* found = field(name);
        if (!found) return;
        const auto* got = found->get_ptr<const Json::number_unsigned_t*>();
        if (!got) return wrong(name, "not a whole number");
        if (*got < least || *got > most || *got > std::numeric_limits<T>::max())
            return wrong(name, "out of range");
        value = static_cast<T>(*got);
    }
    void require(bool condition, const char* name, const char* why) {
        if (!condition) wrong(name, why);
    }

    const std::string& error() const { return error_; }

  private:
    const Json* field(const char* name) {
        const auto found = from_.find(name);
        if (found == from_.end()) {
            wrong(name, "missing");
            return nullptr;
        }
        return &*found;
    }
    const std::string* string(const char* name) {
        const Json* found = field(name);
        if (!found) return nullptr;
        const auto* text = found->get_ptr<const std::string*>();
        if (!text) wrong(name, "not a string");
        return text;
    }
    void wrong(const char* name, const char* why) {
        if (error_.empty()) error_ = fmt::format("{}: {}", name, why);
    }

    const Json& from_;
    std::string error_;
};

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, SessionRequest> {
    v.id("session", m.session);
    v.text("name", m.name, 0, HERALD_NAME_BYTES_MAX);
    v.text("identity", m.identity, 1, HERALD_NAME_BYTES_MAX);
    v.number("disk_bytes", m.disk_bytes, HERALD_SECTOR_BYTES, HERALD_DISK_BYTES_MAX);
    v.number("block_bytes", m.block_bytes, HERALD_SECTOR_BYTES, HERALD_RECORD_DATA_BYTES_MAX);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, SessionGrant> {
    v.number("epoch", m.epoch, 1, kAny);
    v.number("head", m.head, 0, kAny);
    v.id("head_segment", m.head_segment);
    v.id("previous_session", m.previous_session);
    v.number("window_segments", m.window_segments, 1, 1024);
    v.flag("digests", m.digests);
    v.number("head_epoch", m.head_epoch, 0, kAny);
    v.flag("complete", m.complete);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, SegmentAck> {
    v.number("received", m.received, 0, kAny);
    v.number("stored", m.stored, 0, kAny);
    v.id("head_segment", m.head_segment);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, ErrorBody> {
    v.text("code", m.code, 1, kWordBytesMax);
    v.text("message", m.message, 0, kSentenceBytesMax);
    v.number("retry_after_s", m.retry_after_s, 0, 86400);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, DiskInfo> {
    v.id("disk", m.disk);
    v.id("machine", m.machine);
    v.text("name", m.name, 0, HERALD_NAME_BYTES_MAX);
    v.text("identity", m.identity, 0, HERALD_NAME_BYTES_MAX);
    v.number("disk_bytes", m.disk_bytes, 0, HERALD_DISK_BYTES_MAX);
    v.number("epoch", m.epoch, 0, kAny);
    v.number("head", m.head, 0, kAny);
    v.number("segments", m.segments, 0, kAny);
    v.number("stored_bytes", m.stored_bytes, 0, kAny);
    v.number("newest_point_ns", m.newest_point_ns, 0, kAny);
    v.number("points", m.points, 0, kAny);
    v.text("state", m.state, 0, kWordBytesMax);
    v.text("cause", m.cause, 0, kSentenceBytesMax);
    v.text("mode", m.mode, 0, kWordBytesMax);
    v.number("last_heard_ns", m.last_heard_ns, 0, kAny);
    v.number("unheard_ms", m.unheard_ms, 0, kAny);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, PointInfo> {
    v.id("id", m.id);
    v.number("position", m.position, 0, kAny);
    v.number("time_ns", m.time_ns, 0, kAny);
    v.text("kind", m.kind, 0, kWordBytesMax);
    v.text("consistency", m.consistency, 0, kWordBytesMax);
    v.text("name", m.name, 0, HERALD_NAME_BYTES_MAX);
    v.number("disk_bytes", m.disk_bytes, 0, HERALD_DISK_BYTES_MAX);
    v.number("sent_bytes", m.sent_bytes, 0, kAny);
    v.number("raw_bytes", m.raw_bytes, 0, kAny);
    v.text("refusal", m.refusal, 0, kSentenceBytesMax);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, SegmentInfo> {
    v.number("first_position", m.first_position, 0, kAny);
    v.number("last_position", m.last_position, 0, kAny);
    v.number("epoch", m.epoch, 0, kAny);
    v.id("segment", m.segment);
    v.number("bytes", m.bytes, 0, HERALD_SEGMENT_BYTES_MAX);
    v.number("raw_bytes", m.raw_bytes, 0, kAny);
    v.digest("digest", m.digest);
}

template <class V, class M>
void visit(V& v, M& m) requires std::same_as<std::remove_const_t<M>, ServerStatus> {
    v.text("version", m.version, 0, kWordBytesMax);
    v.number("free_bytes", m.free_bytes, 0, kAny);
    v.number("total_bytes", m.total_bytes, 0, kAny);
    v.text("store_state", m.store_state, 0, kWordBytesMax);
    v.number("catalog_free_bytes", m.catalog_free_bytes, 0, kAny);
    v.number("catalog_total_bytes", m.catalog_total_bytes, 0, kAny);
    v.text("catalog_state", m.catalog_state, 0, kWordBytesMax);
    v.number("disks", m.disks, 0, kAny);
    v.number("connections", m.connections, 0, kAny);
    v.number("requests", m.requests, 0, kAny);
}

// What no single field shows.
template <class M>
void check_whole(Reader&, const M&) {}
void check_whole(Reader& r, const SessionRequest& m) {
    r.require(!m.session.is_nil(), "session", "nil");
    r.require(m.disk_bytes % HERALD_SECTOR_BYTES == 0, "disk_bytes", "not whole sectors");
    r.require(std::has_single_bit(m.block_bytes), "block_bytes", "not a power of two");
}
void check_whole(Reader& r, const SegmentAck& m) {
    r.require(m.stored <= m.received, "stored", "beyond received");
}
void check_whole(Reader& r, const SegmentInfo& m) {
    r.require(m.first_position <= m.last_position, "last_position", "before first_position");
}

template <class M>
Json to_json(const M& message) {
    Json json = Json::object();
    Writer writer(json);
    visit(writer, message);
    return json;
}

std::string dump(const Json& json) {
    // Names come from device and host names: a byte that is not UTF-8 is replaced, not thrown at.
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <class M>
Result<M> from_json(const Json& json, const char* what) {
    if (!json.is_object()) return fail(ErrorKind::corrupt, "{}: not a JSON object", what);
    M message;
    Reader reader(json);
    visit(reader, message);
    if (reader.error().empty()) check_whole(reader, message);
    if (!reader.error().empty()) return fail(ErrorKind::corrupt, "{}: {}", what, reader.error());
    return message;
}

Result<Json> parse(std::string_view text, size_t bytes_max, const char* what) {
    if (text.size() > bytes_max)
        return fail(ErrorKind::corrupt, "{}: {} bytes of JSON, the limit is {}", what, text.size(),
                    bytes_max);
    Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) return fail(ErrorKind::corrupt, "{}: not JSON", what);
    return json;
}

template <class M>
Result<M> decode(std::string_view text, const char* what) {
    auto json = parse(text, kMessageBytesMax, what);
    if (!json) return pass(json);
    return from_json<M>(*json, what);
}

template <class M>
std::string encode_list(const std::vector<M>& list, const char* name) {
    Json array = Json::array();
    for (const M& entry : list) array.push_back(to_json(entry));
    Json json = Json::object();
    json[name] = std::move(array);
    return dump(json);
}

template <class M>
Result<std::vector<M>> decode_list(std::string_view text, const char* name) {
    auto json = parse(text, kListBytesMax, name);
    if (!json) return pass(json);
    if (!json->is_object()) return fail(ErrorKind::corrupt, "{}: not a JSON object", name);
    const auto found = json->find(name);
    if (found == json->end() || !found->is_array())
        return fail(ErrorKind::corrupt, "{}: the list is missing", name);
    std::vector<M> list;
    list.reserve(found->size());
    for (const Json& entry : *found) {
        auto message = from_json<M>(entry, name);
        if (!message) return pass(message);
        list.push_back(std::move(*message));
    }
    return list;
}

const char* code_of_status(unsigned status) {
    switch (status) {
        case 403:
            return kErrorForbidden;
        case 404:
            return kErrorNotFound;
        case 503:
        case 429:
            return kErrorBusy;
        case 507:
            return kErrorFull;
        default:
            return status >= 500 ? kErrorInternal : kErrorBadRequest;
    }
}

}  // namespace

std::string encode(const SessionRequest& message) { return dump(to_json(message)); }
std::string encode(const SessionGrant& message) { return dump(to_json(message)); }
std::string encode(const SegmentAck& message) { return dump(to_json(message)); }
std::string encode(const ErrorBody& message) { return dump(to_json(message)); }
std::string encode(const ServerStatus& message) { return dump(to_json(message)); }
std::string encode(const std::vector<DiskInfo>& disks) { return encode_list(disks, "disks"); }
std::string encode(const std::vector<PointInfo>& points) { return encode_list(points, "points"); }
std::string encode(const std::vector<SegmentInfo>& segments) {
    return encode_list(segments, "segments");
}

Result<SessionRequest> decode_session_request(std::string_view text) {
    return decode<SessionRequest>(text, "session request");
}
Result<SessionGrant> decode_session_grant(std::string_view text) {
    return decode<SessionGrant>(text, "session grant");
}
Result<SegmentAck> decode_segment_ack(std::string_view text) {
    return decode<SegmentAck>(text, "segment acknowledgement");
}
Result<ErrorBody> decode_error_body(std::string_view text) {
    return decode<ErrorBody>(text, "error answer");
}
Result<ServerStatus> decode_server_status(std::string_view text) {
    return decode<ServerStatus>(text, "server status");
}
Result<std::vector<DiskInfo>> decode_disks(std::string_view text) {
    return decode_list<DiskInfo>(text, "disks");
}
Result<std::vector<PointInfo>> decode_points(std::string_view text) {
    return decode_list<PointInfo>(text, "points");
}
Result<std::vector<SegmentInfo>> decode_segments(std::string_view text) {
    return decode_list<SegmentInfo>(text, "segments");
}

Result<uint64_t> parse_number(std::string_view text) {
    uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, value);
    if (text.empty() || error != std::errc{} || stopped != end)
        return fail(ErrorKind::corrupt, "'{}' is not a number", text.substr(0, 64));
    return value;
}

ServerResponse json_response(unsigned status, const std::string& json) {
    ServerResponse response;
    response.status = status;
    response.headers["content-type"] = "application/json";
    const ByteView bytes = as_bytes(json);
    response.body.assign(bytes.begin(), bytes.end());
    return response;
}

ServerResponse error_response(unsigned status, std::string_view code, std::string_view message,
                              uint64_t retry_after_s) {
    ErrorBody body;
    body.code = code;
    body.message = message.substr(0, kSentenceBytesMax);
    // A line end in a message (of a system library, say) would make it unreadable at the client.
    for (char& c : body.message)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    body.retry_after_s = retry_after_s;
    ServerResponse response = json_response(status, encode(body));
    if (retry_after_s) response.headers[kHeaderRetryAfter] = std::to_string(retry_after_s);
    return response;
}

ErrorBody error_of(const HttpResponse& response) {
    if (auto body = decode_error_body(as_text(response.body))) return *body;
    ErrorBody body;
    body.code = code_of_status(response.status);
    body.message = fmt::format("the server answered with HTTP status {}", response.status);
    if (const auto found = response.headers.find(kHeaderRetryAfter);
        found != response.headers.end())
        if (auto seconds = parse_number(found->second)) body.retry_after_s = *seconds;
    return body;
}

Error to_error(const HttpResponse& response, std::string_view doing) {
    const ErrorBody body = error_of(response);
    ErrorKind kind = response.status >= 500 ? ErrorKind::retry : ErrorKind::operator_needed;
    if (body.code == kErrorFenced || body.code == kErrorDiverged) kind = ErrorKind::resync;
    if (body.code == kErrorBusy || body.code == kErrorAhead || body.code == kErrorFull)
        kind = ErrorKind::retry;
    if (body.code == kErrorCorrupt) kind = ErrorKind::corrupt;
    return Error{kind, fmt::format("{}: {} ({})", doing, body.message, body.code), 0};
}

}  // namespace herald::wire
