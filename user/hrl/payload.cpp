// SPDX-License-Identifier: Apache-2.0
// The payloads of marker records. Strings carry a 32-bit length and are checked to be short,
// valid UTF-8 without control characters: they end up in tables, JSON and terminals.
#include <string_view>

#include "herald/limits.h"
#include "user/hrl/record.h"

namespace herald::hrl {

namespace {

class Encoder {
  public:
    template <std::unsigned_integral T>
    void number(T value) {
        const size_t at = bytes_.size();
        bytes_.resize(at + sizeof value);
        store_le(bytes_.data() + at, value);
    }
    void zeroes(size_t count) { bytes_.resize(bytes_.size() + count); }
    void id(const Uuid& id) { bytes_.insert(bytes_.end(), id.bytes.begin(), id.bytes.end()); }
    void text(std::string_view text) {
        number(uint32_t(text.size()));
        const ByteView bytes = as_bytes(text);
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }
    Bytes take() && { return std::move(bytes_); }

  private:
    Bytes bytes_;
};

// The length of the UTF-8 sequence at the front, or 0 when it is none or a control character.
size_t utf8_sequence(std::string_view text) {
    const auto byte = [&](size_t i) { return uint8_t(text[i]); };
    const uint8_t first = byte(0);
    if (first < 0x80) return first < 0x20 || first == 0x7f ? 0 : 1;
    const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
    uint32_t code = first & (0x7fu >> length);
    for (size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
        code = code << 6 | (byte(i) & 0x3f);
    }
    constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool control = code >= 0x80 && code < 0xa0;
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    if (code < kSmallest[length] || code > 0x10ffff || surrogate || control) return 0;
    return length;
}

bool is_plain_text(std::string_view text) {
    while (!text.empty()) {
        const size_t length = utf8_sequence(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

// Takes fields from the front. The first failure sticks; the fields after it are zero.
class Decoder {
  public:
    Decoder(ByteView bytes, const char* what) : rest_(bytes), what_(what) {}

    template <std::unsigned_integral T>
    T number() {
        const ByteView from = take(sizeof(T));
        return from.empty() ? T{0} : load_le<T>(from.data());
    }
    void zeroes(size_t count) {
        if (!all_zero(take(count))) refuse("a reserved byte is not zero");
    }
    Uuid id() {
        Uuid id;
        const ByteView from = take(id.bytes.size());
        if (!from.empty()) std::copy(from.begin(), from.end(), id.bytes.begin());
        return id;
    }
    std::string text() {
        const uint32_t size = number<uint32_t>();
        if (size > HERALD_NAME_BYTES_MAX) {
            refuse("a text is longer than 255 bytes");
            return {};
        }
        const std::string_view text = as_text(take(size));
        if (!is_plain_text(text)) refuse("a text is not UTF-8 or holds control characters");
        return std::string(text);
    }
    template <class Enum>
    Enum one_of(Enum last) {
        const uint8_t value = number<uint8_t>();
        if (value < 1 || value > uint8_t(last)) refuse("a field has an unknown value");
        return Enum(value);
    }
    bool truth() {
        const uint8_t value = number<uint8_t>();
        if (value > 1) refuse("a truth value is neither 0 nor 1");
        return value == 1;
    }
    template <class T>
    Result<T> done(T value) {
        if (!rest_.empty()) refuse("bytes are left over");
        if (problem_) return fail(ErrorKind::corrupt, "payload of {}: {}", what_, problem_);
        return value;
    }

  private:
    void refuse(const char* problem) {
        if (!problem_) problem_ = problem;
        rest_ = {};
    }
    ByteView take(size_t count) {
        if (rest_.size() < count) {
            refuse("it is too short");
            return {};
        }
        const ByteView taken = rest_.first(count);
        rest_ = rest_.subspan(count);
        return taken;
    }

    ByteView rest_;
    const char* what_;
    const char* problem_ = nullptr;
};

}  // namespace

Bytes encode_tag(const Tag& tag) {
    Encoder to;
    to.id(tag.id);
    to.number(tag.time_ns);
    to.number(uint8_t(tag.kind));
    to.number(uint8_t(tag.consistency));
    to.zeroes(2);
    to.text(tag.name);
    return std::move(to).take();
}

Result<Tag> decode_tag(ByteView payload) {
    Decoder from(payload, "tag");
    Tag tag;
    tag.id = from.id();
    tag.time_ns = from.number<uint64_t>();
    tag.kind = from.one_of(TagKind::final_);
    tag.consistency = from.one_of(Consistency::application);
    from.zeroes(2);
    tag.name = from.text();
    return from.done(std::move(tag));
}

Bytes encode_scan_begin(const ScanBegin& mark) {
    Encoder to;
    to.number(mark.scan);
    to.number(uint8_t(mark.cause));
    to.zeroes(7);
    return std::move(to).take();
}

Result<ScanBegin> decode_scan_begin(ByteView payload) {
    Decoder from(payload, "scan begin");
    ScanBegin mark;
    mark.scan = from.number<uint64_t>();
    mark.cause = from.one_of(ScanCause::reread);
    from.zeroes(7);
    return from.done(mark);
}

Bytes encode_scan_end(const ScanEnd& mark) {
    Encoder to;
    to.number(mark.scan);
    to.number(mark.unreadable_blocks);
    to.number(uint8_t(mark.quiescent));
    to.zeroes(7);
    return std::move(to).take();
}

Result<ScanEnd> decode_scan_end(ByteView payload) {
    Decoder from(payload, "scan end");
    ScanEnd mark;
    mark.scan = from.number<uint64_t>();
    mark.unreadable_blocks = from.number<uint64_t>();
    mark.quiescent = from.truth();
    from.zeroes(7);
    return from.done(mark);
}

Bytes encode_mode_change(const ModeChange& change) {
    Encoder to;
    to.number(uint8_t(change.mode));
    to.zeroes(3);
    to.text(change.cause);
    return std::move(to).take();
}

Result<ModeChange> decode_mode_change(ByteView payload) {
    Decoder from(payload, "mode change");
    ModeChange change;
    change.mode = from.one_of(StreamMode::unordered);
    from.zeroes(3);
    change.cause = from.text();
    return from.done(std::move(change));
}

Bytes encode_activation(const Activation& activation) {
    Encoder to;
    to.id(activation.session);
    to.number(uint8_t(activation.mode));
    to.zeroes(3);
    to.text(activation.tracker);
    to.text(activation.gap);
    return std::move(to).take();
}

Result<Activation> decode_activation(ByteView payload) {
    Decoder from(payload, "activation");
    Activation activation;
    activation.session = from.id();
    activation.mode = from.one_of(StreamMode::unordered);
    from.zeroes(3);
    activation.tracker = from.text();
    activation.gap = from.text();
    return from.done(std::move(activation));
}

}  // namespace herald::hrl
