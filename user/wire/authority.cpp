// SPDX-License-Identifier: Apache-2.0
#include "user/wire/authority.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <ctime>

#include "user/base/file.h"
#include "user/wire/tls_state.h"

namespace herald::wire {
namespace {

// Certificates begin an hour ago: the other side's clock may be behind ours.
constexpr long kBackdateSeconds = 3600;
constexpr unsigned kValidDaysMax = 36500;
constexpr size_t kHostsMax = 64;
constexpr size_t kHostBytesMax = 253;

using NumberPtr = std::unique_ptr<BIGNUM, OpensslFree<BN_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>>;

tl::unexpected<Error> openssl_failure(std::string_view doing) {
    return fail(ErrorKind::operator_needed, "{}: {}", doing, openssl_errors());
}

Result<void> check_days(unsigned valid_days) {
    if (valid_days == 0 || valid_days > kValidDaysMax)
        return fail(ErrorKind::operator_needed, "{} days of validity: 1 to {} are possible",
                    valid_days, kValidDaysMax);
    return {};
}

Result<void> set_random_serial(X509* certificate) {
    // 127 random bits with the top one set: positive, and 16 bytes long (RFC 5280 allows 20).
    NumberPtr number(BN_new());
    if (!number || !BN_rand(number.get(), 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) ||
        !BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)))
        return openssl_failure("serial number");
    return {};
}

Result<void> add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
    if (!extension || !X509_add_ext(certificate, extension.get(), -1))
        return openssl_failure(fmt::format("extension '{}'", value));
    return {};
}

// A certificate with name, key, serial and times, without extensions and signature.
Result<X509Ptr> begin_certificate(const std::string& common_name, EVP_PKEY* key,
                                  unsigned valid_days) {
    ERR_clear_error();
    X509Ptr certificate(X509_new());
    if (!certificate || !X509_set_version(certificate.get(), X509_VERSION_3))
        return openssl_failure("certificate");
    if (auto serial = set_random_serial(certificate.get()); !serial) return pass(serial);
    const long seconds = long(valid_days) * 86400;
    if (!X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kBackdateSeconds) ||
        !X509_gmtime_adj(X509_getm_notAfter(certificate.get()), seconds) ||
        !X509_set_pubkey(certificate.get(), key))
        return openssl_failure("certificate");
    const auto* text = reinterpret_cast<const unsigned char*>(common_name.data());
    if (!X509_NAME_add_entry_by_NID(X509_get_subject_name(certificate.get()), NID_commonName,
                                    MBSTRING_UTF8, text, int(common_name.size()), -1, 0))
        return openssl_failure(fmt::format("the name '{}'", common_name));
    return certificate;
}

Result<void> sign(X509* certificate, EVP_PKEY* key) {
    if (!X509_sign(certificate, key, EVP_sha256())) return openssl_failure("signing");
    return {};
}

Result<Bytes> pem_of(X509* certificate) {
    BioPtr bio(BIO_new(BIO_s_mem()));
    if (!bio || !PEM_write_bio_X509(bio.get(), certificate)) return openssl_failure("PEM");
    char* data = nullptr;
    const long bytes = BIO_get_mem_data(bio.get(), &data);
    const auto* from = reinterpret_cast<const std::byte*>(data);
    return Bytes(from, from + bytes);
}

Result<Bytes> pem_of(EVP_PKEY* key) {
    BioPtr bio(BIO_new(BIO_s_secmem()));
    if (!bio ||
        !PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr))
        return openssl_failure("PEM");
    char* data = nullptr;
    const long bytes = BIO_get_mem_data(bio.get(), &data);
    const auto* from = reinterpret_cast<const std::byte*>(data);
    return Bytes(from, from + bytes);
}

Result<void> refuse_existing(const std::filesystem::path& path) {
    std::error_code ignored;
    const auto status = std::filesystem::symlink_status(path, ignored);
    if (std::filesystem::exists(status))
        return fail(ErrorKind::operator_needed, "{}: exists; it is never overwritten",
                    path.native());
    return {};
}

// A whole file under a name that did not exist: link(2) refuses an existing one, so two callers
// at once cannot both win, and a crash leaves no half of a key under the final name.
Result<void> create_file(const std::filesystem::path& path, ByteView bytes, mode_t mode) {
    std::filesystem::path temporary = path;
    temporary += "." + to_string(Uuid::random()) + ".new";
    auto fd = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (!fd) return pass(fd);
    auto written = write_exact(fd->get(), 0, bytes, path.native());
    if (written) written = sync_fd(fd->get(), path.native());
    if (written && ::link(temporary.c_str(), path.c_str()) != 0)
        written = fail_errno(errno, fmt::format("create {}", path.native()));
    ::unlink(temporary.c_str());
    if (!written) return written;
    return sync_dir(path.parent_path());
}

// The key first: a certificate without its key is of no use, the reverse only a stray file.
Result<void> create_pair(const AuthorityFiles& files, X509* certificate, EVP_PKEY* key) {
    auto certificate_pem = pem_of(certificate);
    if (!certificate_pem) return pass(certificate_pem);
    auto key_pem = pem_of(key);
    if (!key_pem) return pass(key_pem);
    auto created = create_file(files.key, *key_pem, 0600);
    OPENSSL_cleanse(key_pem->data(), key_pem->size());
    if (!created) return created;
    created = create_file(files.certificate, *certificate_pem, 0644);
    if (!created) ::unlink(files.key.c_str());
    return created;
}

bool is_host_name(std::string_view name) {
    if (name.empty() || name.size() > kHostBytesMax) return false;
    for (const char c : name) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && c != '-' && c != '.') return false;
    }
    return name.front() != '.' && name.front() != '-';
}

// "DNS:web1,IP:10.0.0.1", as OpenSSL's configuration wants it; the checks keep its own syntax
// (commas, '@section') out of the names.
Result<std::string> alternative_names(const std::vector<std::string>& hosts) {
    if (hosts.size() > kHostsMax)
        return fail(ErrorKind::operator_needed, "{} host names: at most {} are possible",
                    hosts.size(), kHostsMax);
    std::string names;
    for (const std::string& host : hosts) {
        ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str());
        ERR_clear_error();
        if (!address && !is_host_name(host))
            return fail(ErrorKind::operator_needed, "'{}' is neither a host name nor an address",
                        host);
        if (!names.empty()) names += ',';
        names += (address ? "IP:" : "DNS:") + host;
        ASN1_OCTET_STRING_free(address);
    }
    return names;
}

Result<void> extend_leaf(X509* certificate, X509* issuer, const Identity& subject,
                         const std::string& names) {
    const bool server = subject.role == Role::server;
    const std::pair<int, std::string> extensions[] = {
        {NID_basic_constraints, "critical,CA:FALSE"},
        {NID_key_usage, "critical,digitalSignature"},
        {NID_ext_key_usage, server ? "serverAuth" : "clientAuth"},
        {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid:always"},
    };
    for (const auto& [nid, value] : extensions)
        if (auto added = add_extension(certificate, issuer, nid, value); !added) return added;
    if (names.empty()) return {};
    return add_extension(certificate, issuer, NID_subject_alt_name, names);
}

}  // namespace

Result<void> create_authority(const AuthorityFiles& files, const std::string& name,
                              unsigned valid_days) {
    if (auto days = check_days(valid_days); !days) return days;
    for (const auto& path : {files.certificate, files.key})
        if (auto absent = refuse_existing(path); !absent) return absent;
    KeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    if (!key) return openssl_failure("making a key");
    auto certificate = begin_certificate(name, key.get(), valid_days);
    if (!certificate) return pass(certificate);
    X509* root = certificate->get();
    if (!X509_set_issuer_name(root, X509_get_subject_name(root)))
        return openssl_failure("certificate");
    // pathlen 0: it signs the certificates of machines and people, not other authorities.
    const std::pair<int, std::string> extensions[] = {
        {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
        {NID_key_usage, "critical,keyCertSign,cRLSign"},
        {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid:always"},
    };
    for (const auto& [nid, value] : extensions)
        if (auto added = add_extension(root, root, nid, value); !added) return added;
    if (auto done = sign(root, key.get()); !done) return done;
    return create_pair(files, root, key.get());
}

Result<void> issue_certificate(const AuthorityFiles& authority, const Identity& subject,
                               const std::vector<std::string>& hosts, unsigned valid_days,
                               const std::filesystem::path& certificate,
                               const std::filesystem::path& key) {
    const std::string common_name = to_string(subject);
    if (auto identity = parse_identity(common_name); !identity) return pass(identity);
    if (auto days = check_days(valid_days); !days) return days;
    if (subject.role == Role::server && hosts.empty())
        return fail(ErrorKind::operator_needed,
                    "{}: a server's certificate needs the names or addresses clients reach it by",
                    common_name);
    auto names = alternative_names(hosts);
    if (!names) return pass(names);
    for (const auto& path : {certificate, key})
        if (auto absent = refuse_existing(path); !absent) return absent;

    auto root = load_certificate(authority.certificate);
    if (!root) return pass(root);
    auto root_key = load_key(authority.key);
    if (!root_key) return pass(root_key);
    if (!X509_check_private_key(root->get(), root_key->get()))
        return fail(ErrorKind::operator_needed, "{}: does not belong to {}", authority.key.native(),
                    authority.certificate.native());
    if (!X509_check_ca(root->get()))
        return fail(ErrorKind::operator_needed, "{}: is not an authority's certificate",
                    authority.certificate.native());

    KeyPtr fresh(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    if (!fresh) return openssl_failure("making a key");
    auto made = begin_certificate(common_name, fresh.get(), valid_days);
    if (!made) return pass(made);
    X509* leaf = made->get();
    // A certificate cannot outlive the authority that vouches for it.
    const ASN1_TIME* root_end = X509_get0_notAfter(root->get());
    if (ASN1_TIME_compare(X509_get0_notAfter(leaf), root_end) > 0 &&
        !X509_set1_notAfter(leaf, root_end))
        return openssl_failure("certificate");
    if (!X509_set_issuer_name(leaf, X509_get_subject_name(root->get())))
        return openssl_failure("certificate");
    if (auto extended = extend_leaf(leaf, root->get(), subject, *names); !extended) return extended;
    if (auto done = sign(leaf, root_key->get()); !done) return done;
    return create_pair({certificate, key}, leaf, fresh.get());
}

}  // namespace herald::wire
