// SPDX-License-Identifier: Apache-2.0
#include <openssl/evp.h>
#include <sys/random.h>
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
// The library's plain functions are built for any x86-64; these choose by what the processor has.
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "user/base/digest.h"
#include "user/base/uuid.h"

namespace herald {

namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

void set_version(Uuid& id, unsigned version) {
    id.bytes[6] = (id.bytes[6] & std::byte{0x0f}) | std::byte(version << 4);
    id.bytes[8] = (id.bytes[8] & std::byte{0x3f}) | std::byte{0x80};
}

}  // namespace

Uuid Uuid::random() {
    Uuid id;
    HERALD_ASSERT(getrandom(id.bytes.data(), id.bytes.size(), 0) == ssize_t(id.bytes.size()));
    set_version(id, 4);
    return id;
}

Uuid Uuid::from_name(const Uuid& space, std::string_view name) {
    Bytes text(space.bytes.begin(), space.bytes.end());
    const ByteView name_bytes = as_bytes(name);
    text.insert(text.end(), name_bytes.begin(), name_bytes.end());
    const auto hash = sha256(text);
    Uuid id;
    std::copy_n(hash.begin(), id.bytes.size(), id.bytes.begin());
    set_version(id, 8);
    return id;
}

Result<Uuid> Uuid::parse(std::string_view text) {
    const auto refuse = [&] {
        return fail(ErrorKind::operator_needed,
                    "'{}' is not an id: 8-4-4-4-12 hex digits were expected", text.substr(0, 64));
    };
    if (text.size() != 36) return refuse();
    Uuid id;
    size_t at = 0;
    for (size_t i = 0; i < 36;) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i++] != '-') return refuse();
            continue;
        }
        const int high = hex_value(text[i]);
        const int low = hex_value(text[i + 1]);
        if (high < 0 || low < 0) return refuse();
        id.bytes[at++] = std::byte(high << 4 | low);
        i += 2;
    }
    return id;
}

std::string to_string(const Uuid& id) {
    std::string text = to_hex(id.bytes);
    for (size_t at : {8, 13, 18, 23}) text.insert(at, 1, '-');
    return text;
}

uint64_t xxh3_64(ByteView bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

Digest128 xxh3_128(ByteView bytes) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes.data(), bytes.size()));
    Digest128 digest;
    std::memcpy(digest.bytes.data(), canonical.digest, digest.bytes.size());
    return digest;
}

std::array<std::byte, 32> sha256(ByteView bytes) {
    std::array<std::byte, 32> hash;
    HERALD_ASSERT(EVP_Digest(bytes.data(), bytes.size(),
                             reinterpret_cast<unsigned char*>(hash.data()), nullptr, EVP_sha256(),
                             nullptr) == 1);
    return hash;
}

std::string to_hex(ByteView bytes) {
    std::string text;
    text.reserve(bytes.size() * 2);
    for (std::byte b : bytes) {
        text += kHexDigits[unsigned(b) >> 4];
        text += kHexDigits[unsigned(b) & 15];
    }
    return text;
}

}  // namespace herald

size_t std::hash<herald::Uuid>::operator()(const herald::Uuid& id) const noexcept {
    return herald::xxh3_64(id.bytes);
}
