// SPDX-License-Identifier: Apache-2.0
#include "user/seal/key_text.h"

#include "user/base/digest.h"

namespace herald::seal {

namespace {

constexpr std::string_view kVersion = "1";
constexpr std::string_view kDigestLine = "sha256 ";
constexpr size_t kDigestLineBytes = kDigestLine.size() + 64 + 1;

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

}  // namespace

KeyTextWriter::KeyTextWriter(std::string_view what) {
    // No reallocation, which would leave a copy of a key behind.
    text_.reserve(kKeyFileBytesMax);
    text_.append(what).append(" ").append(kVersion).append("\n");
}

void KeyTextWriter::field(std::string_view name, std::string_view value) {
    text_.append(name).append(" ").append(value).append("\n");
}

void KeyTextWriter::field_hex(std::string_view name, ByteView value) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    text_.append(name).append(" ");
    for (const std::byte b : value) {
        text_.push_back(kDigits[unsigned(b) >> 4]);
        text_.push_back(kDigits[unsigned(b) & 15]);
    }
    text_.push_back('\n');
}

Secret KeyTextWriter::finish() && {
    const auto digest = sha256(as_bytes(text_));
    field_hex(kDigestLine.substr(0, kDigestLine.size() - 1), digest);
    HERALD_ASSERT(text_.size() <= kKeyFileBytesMax);
    return Secret(as_bytes(text_));
}

Result<KeyTextReader> KeyTextReader::open(ByteView bytes, std::string_view what, std::string name) {
    KeyTextReader reader;
    reader.name_ = std::move(name);
    const std::string_view text = as_text(bytes);
    if (text.size() > kKeyFileBytesMax || text.size() < kDigestLineBytes) {
        return reader.refuse("no key file has this size");
    }
    for (const char c : text) {
        if ((c < ' ' && c != '\n') || c > '~') return reader.refuse("it is not a key file");
    }
    const size_t first_end = text.find('\n');
    const std::string_view first = text.substr(0, first_end);
    if (first.substr(0, what.size()) != what || first.size() <= what.size() + 1 ||
        first[what.size()] != ' ') {
        return reader.refuse(fmt::format("it is not a {} file", what));
    }
    const std::string_view version = first.substr(what.size() + 1);
    if (version != kVersion) {
        return fail(ErrorKind::operator_needed, "{}: {} version {}; this program reads {}",
                    reader.name_, what, version, kVersion);
    }
    const std::string_view covered = text.substr(0, text.size() - kDigestLineBytes);
    const std::string expected =
        std::string(kDigestLine) + to_hex(sha256(as_bytes(covered))) + "\n";
    if (text.substr(covered.size()) != expected || covered.empty() || covered.back() != '\n') {
        return reader.refuse("its digest is wrong: it is damaged");
    }
    reader.rest_ = covered.substr(first_end + 1);
    return reader;
}

tl::unexpected<Error> KeyTextReader::refuse(std::string_view why) const {
    return fail(ErrorKind::corrupt, "{}: {}", name_, why);
}

Result<std::string_view> KeyTextReader::field(std::string_view name) {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos || end < name.size() + 2 ||
        rest_.substr(0, name.size()) != name || rest_[name.size()] != ' ') {
        return refuse(fmt::format("it has no {} where it belongs", name));
    }
    const std::string_view value = rest_.substr(name.size() + 1, end - name.size() - 1);
    rest_.remove_prefix(end + 1);
    return value;
}

Result<Secret> KeyTextReader::field_hex(std::string_view name, size_t size) {
    auto text = field(name);
    if (!text) return pass(text);
    Secret value(size);
    bool good = text->size() == 2 * size;
    for (size_t i = 0; good && i < size; ++i) {
        const int high = hex_value((*text)[2 * i]);
        const int low = hex_value((*text)[2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good) value.span()[i] = std::byte(high << 4 | low);
    }
    if (!good) return refuse(fmt::format("its {} is not {} bytes of hex", name, size));
    return value;
}

Result<Uuid> KeyTextReader::field_id(std::string_view name) {
    auto text = field(name);
    if (!text) return pass(text);
    auto id = Uuid::parse(*text);
    if (!id || id->is_nil() || to_string(*id) != *text) {
        return refuse(fmt::format("its {} is not an id", name));
    }
    return *id;
}

Result<void> KeyTextReader::at_end() const {
    if (!rest_.empty()) return refuse("it has lines that do not belong there");
    return {};
}

}  // namespace herald::seal
