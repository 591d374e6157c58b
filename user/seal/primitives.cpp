// SPDX-License-Identifier: Apache-2.0
#include "user/seal/primitives.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/random.h>

namespace herald::seal {

namespace {

constexpr size_t kWrapExtraBytes = 8;

const unsigned char* octets(ByteView bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* octets(ByteSpan bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }

// libcrypto takes its inputs as pointers to what it does not write.
OSSL_PARAM octet_param(const char* name, ByteView bytes) {
    static const std::byte nothing{};
    const void* data = bytes.empty() ? &nothing : bytes.data();
    return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), bytes.size());
}

bool derive(const char* algorithm, const OSSL_PARAM* params, ByteSpan to) {
    EVP_KDF* kdf = EVP_KDF_fetch(nullptr, algorithm, nullptr);
    HERALD_ASSERT(kdf);
    EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
    EVP_KDF_free(kdf);
    HERALD_ASSERT(context);
    const bool derived = EVP_KDF_derive(context, octets(to), to.size(), params) == 1;
    EVP_KDF_CTX_free(context);
    return derived;
}

// One pass of AES-256-KW in either direction; the bytes it gave, or 0.
size_t run_key_wrap(bool wrap, ByteView key, ByteView from, ByteSpan to) {
    HERALD_ASSERT(key.size() == kKeyBytes);
    EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
    HERALD_ASSERT(context);
    EVP_CIPHER_CTX_set_flags(context, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
    HERALD_ASSERT(EVP_CipherInit_ex(context, EVP_aes_256_wrap(), nullptr, octets(key), nullptr,
                                    wrap ? 1 : 0) == 1);
    int size = 0;
    const bool done =
        EVP_CipherUpdate(context, octets(to), &size, octets(from), int(from.size())) == 1;
    EVP_CIPHER_CTX_free(context);
    return done && size > 0 ? size_t(size) : 0;
}

}  // namespace

Secret hkdf_sha256(ByteView key, ByteView salt, ByteView info, size_t size) {
    Secret to(size);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        octet_param(OSSL_KDF_PARAM_KEY, key), octet_param(OSSL_KDF_PARAM_SALT, salt),
        octet_param(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
    HERALD_ASSERT(derive("HKDF", params, to.span()));
    return to;
}

Result<Secret> scrypt(ByteView passphrase, ByteView salt, const ScryptCost& cost, size_t size) {
    Secret to(size);
    uint64_t n = cost.n;
    uint32_t r = cost.r;
    uint32_t p = cost.p;
    // Twice what the blocks take: libcrypto counts some overhead in, and refuses above 32 MiB
    // when it is told nothing.
    uint64_t memory_bytes = 256 * n * r + 256 * uint64_t{p} * r + (1u << 20);
    const OSSL_PARAM params[] = {
        octet_param(OSSL_KDF_PARAM_PASSWORD, passphrase),
        octet_param(OSSL_KDF_PARAM_SALT, salt),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &memory_bytes),
        OSSL_PARAM_construct_end()};
    if (derive("SCRYPT", params, to.span())) return to;
    return fail(ErrorKind::operator_needed,
                "scrypt with N {} and r {} failed: it needs {} MiB of memory", n, r,
                128 * n * r >> 20);
}

Bytes wrap_key(ByteView key, ByteView plain) {
    HERALD_ASSERT(plain.size() % 8 == 0 && plain.size() >= 16);
    Bytes wrapped(plain.size() + kWrapExtraBytes);
    HERALD_ASSERT(run_key_wrap(true, key, plain, wrapped) == wrapped.size());
    return wrapped;
}

Result<Secret> unwrap_key(ByteView key, ByteView wrapped) {
    if (wrapped.size() % 8 == 0 && wrapped.size() >= 16 + kWrapExtraBytes) {
        Secret plain(wrapped.size() - kWrapExtraBytes);
        if (run_key_wrap(false, key, wrapped, plain.span()) == plain.size()) return plain;
    }
    return fail(ErrorKind::corrupt, "the wrapped key does not open");
}

Secret random_secret(size_t size) {
    Secret secret(size);
    HERALD_ASSERT(size <= 256 && getrandom(secret.span().data(), size, 0) == ssize_t(size));
    return secret;
}

}  // namespace herald::seal
