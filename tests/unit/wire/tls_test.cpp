// SPDX-License-Identifier: Apache-2.0
// Who is let in, who is not, and whether both sides are told why.
#include <openssl/pem.h>
#include <sys/stat.h>

#include <set>

#include "tests/catch.hpp"
#include "tests/unit/wire/fixture.h"
#include "user/base/digest.h"
#include "user/wire/tls_state.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;
using Catch::Matchers::Contains;

namespace {

// A client with its own certificate (and trust) against a server with the usual ones.
Error refusal(TestServer& server, const TlsFiles& files, const std::string& host = "127.0.0.1") {
    auto context = TlsContext::load(files, TlsSide::client);
    Certificates::must(context);
    HttpClient client({host, server.server->port()}, *context);
    auto response = client.send({}, 5s);
    REQUIRE_FALSE(response);
    return response.error();
}

mode_t mode_of(const std::filesystem::path& path) {
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    return info.st_mode & 0777;
}

// Signs a certificate that our own code would never issue, by editing one that it did.
void forge(const AuthorityFiles& root, const std::filesystem::path& from,
           const std::filesystem::path& to, const std::function<void(X509*)>& edit) {
    auto certificate = load_certificate(from);
    auto key = load_key(root.key);
    Certificates::must(certificate);
    Certificates::must(key);
    edit(certificate->get());
    REQUIRE(X509_sign(certificate->get(), key->get(), EVP_sha256()));
    FILE* file = std::fopen(to.c_str(), "w");
    REQUIRE(file);
    REQUIRE(PEM_write_X509(file, certificate->get()));
    std::fclose(file);
}

}  // namespace

TEST_CASE("an authority and its certificates are never overwritten") {
    TempDir dir;
    const AuthorityFiles root{dir.path() / "ca.pem", dir.path() / "ca.key"};
    REQUIRE(create_authority(root, "a", 10));
    CHECK(mode_of(root.key) == 0600);
    const Bytes before = *read_file(root.key, 10000);
    CHECK_THAT(create_authority(root, "b", 10).error().message, Contains("never overwritten"));
    std::filesystem::remove(root.certificate);
    CHECK_FALSE(create_authority(root, "b", 10));
    CHECK(*read_file(root.key, 10000) == before);
    CHECK_FALSE(std::filesystem::exists(root.certificate));
}

TEST_CASE("a certificate is issued once, closed to others, and not for nonsense") {
    TempDir dir;
    const AuthorityFiles root{dir.path() / "ca.pem", dir.path() / "ca.key"};
    REQUIRE(create_authority(root, "a", 10));
    const auto pem = dir.path() / "c.pem", key = dir.path() / "c.key";
    const Identity person{Role::operator_, "anna", {}};
    REQUIRE(issue_certificate(root, person, {}, 10, pem, key));
    CHECK(mode_of(key) == 0600);
    CHECK_FALSE(issue_certificate(root, person, {}, 10, pem, dir.path() / "d.key"));
    CHECK_FALSE(std::filesystem::exists(dir.path() / "d.key"));

    const auto issue = [&](const Identity& who, const std::vector<std::string>& hosts,
                           unsigned days) {
        return issue_certificate(root, who, hosts, days, dir.path() / "x.pem",
                                 dir.path() / "x.key");
    };
    const Identity server{Role::server, "s", {}};
    CHECK_FALSE(issue(server, {}, 10));
    CHECK_FALSE(issue(server, {"a,DNS:evil"}, 10));
    CHECK_FALSE(issue(server, {"@section"}, 10));
    CHECK_FALSE(issue(server, {""}, 10));
    CHECK_FALSE(issue(server, {"ok"}, 0));
    CHECK_FALSE(issue({Role::operator_, "", {}}, {}, 10));
    CHECK_FALSE(issue({Role::operator_, std::string(60, 'x'), {}}, {}, 10));
    CHECK_FALSE(issue({Role::machine, "", Uuid{}}, {}, 10));
    CHECK_FALSE(std::filesystem::exists(dir.path() / "x.key"));
    CHECK(issue(server, {"web1.example.org", "10.0.0.1", "fe80::1"}, 10));
    // Only what was asked for is there: no temporary file is left behind.
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 6);
}

TEST_CASE("serial numbers are random, and a certificate ends with its authority") {
    TempDir dir;
    const AuthorityFiles root{dir.path() / "ca.pem", dir.path() / "ca.key"};
    REQUIRE(create_authority(root, "a", 10));
    std::set<std::string> serials;
    for (int i = 0; i < 8; i++) {
        const auto pem = dir.path() / std::to_string(i);
        REQUIRE(issue_certificate(root, {Role::operator_, "x", {}}, {}, 3650, pem,
                                  dir.path() / (std::to_string(i) + "k")));
        auto certificate = load_certificate(pem);
        const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate->get());
        CHECK(ASN1_STRING_length(serial) == 16);
        serials.insert(
            to_hex(as_bytes({reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)),
                             size_t(ASN1_STRING_length(serial))})));
        auto authority = load_certificate(root.certificate);
        CHECK(ASN1_TIME_compare(X509_get0_notAfter(certificate->get()),
                                X509_get0_notAfter(authority->get())) == 0);
    }
    CHECK(serials.size() == 8);
}

TEST_CASE("a key that others can read is refused with the remedy") {
    const auto files = certificates().files("machine");
    TempDir dir;
    const auto copy = dir.path() / "open.key";
    std::filesystem::copy(files.key, copy);
    for (const mode_t mode : {0640, 0604, 0660}) {
        ::chmod(copy.c_str(), mode);
        auto loaded = TlsContext::load({files.authority, files.certificate, copy}, TlsSide::client);
        REQUIRE_FALSE(loaded);
        CHECK_THAT(loaded.error().message, Contains("chmod 600") && Contains("open.key"));
    }
    ::chmod(copy.c_str(), 0400);
    CHECK(TlsContext::load({files.authority, files.certificate, copy}, TlsSide::client));
}

TEST_CASE("files that do not belong together are refused by name") {
    const auto machine = certificates().files("machine");
    const auto other = certificates().files("operator");
    auto mixed =
        TlsContext::load({machine.authority, machine.certificate, other.key}, TlsSide::client);
    REQUIRE_FALSE(mixed);
    CHECK_THAT(mixed.error().message, Contains("operator.key") && Contains("machine.pem"));
    auto swapped = TlsContext::load({machine.authority, machine.key, machine.key}, TlsSide::client);
    REQUIRE_FALSE(swapped);
    CHECK_THAT(swapped.error().message, Contains("machine.key"));
    CHECK_FALSE(TlsContext::load({machine.key, machine.certificate, machine.key}, TlsSide::client));
    CHECK_FALSE(
        TlsContext::load({"/nonexistent", machine.certificate, machine.key}, TlsSide::client));
    // The authority's own certificate names no role.
    CHECK_FALSE(
        TlsContext::load({machine.authority, machine.authority, machine.key}, TlsSide::client));
}

TEST_CASE("an identity is one of three roles with a plain name") {
    const std::string id = to_string(certificates().machine);
    CHECK(parse_identity("machine:" + id)->machine == certificates().machine);
    CHECK(to_string(*parse_identity("machine:" + id)) == "machine:" + id);
    CHECK(parse_identity("operator:anna")->name == "anna");
    CHECK(parse_identity("server:ps-1")->role == Role::server);
    for (const char* bad : {"", "anna", "root:anna", "operator", "operator:", "Operator:anna",
                            "machine:anna", "machine:00000000-0000-0000-0000-000000000000",
                            "operator:a\nb", "server:a/b", "operator:\xc3\xa4"})
        CHECK_FALSE(parse_identity(bad));
}

TEST_CASE("a client of a foreign authority is refused, and each side says which one refused") {
    TestServer server;
    TempDir dir;
    const AuthorityFiles foreign{dir.path() / "ca.pem", dir.path() / "ca.key"};
    REQUIRE(create_authority(foreign, "foreign", 10));
    const TlsFiles files{dir.path() / "ca.pem", dir.path() / "c.pem", dir.path() / "c.key"};
    REQUIRE(issue_certificate(foreign, {Role::operator_, "eve", {}}, {}, 10, files.certificate,
                              files.key));
    // It trusts our server, but our server does not trust it.
    Error error =
        refusal(server, {certificates().files("server").authority, files.certificate, files.key});
    CHECK(error.kind == ErrorKind::operator_needed);
    CHECK_THAT(error.message, Contains("the server refused our certificate"));
    // It does not trust our server.
    error = refusal(server, files);
    CHECK(error.kind == ErrorKind::operator_needed);
    CHECK_THAT(error.message, Contains("we refused the server's certificate"));
    CHECK(wait_until([&] { return server.server->counters().refused_tls == 2; }));
    CHECK(server.handler.admitted == 0);
}

TEST_CASE("a server is refused when its certificate does not name the host") {
    TestServer server;
    const Error error = refusal(server, certificates().files("machine"), "127.0.0.2");
    CHECK(error.kind != ErrorKind::corrupt);
    HttpClient by_name({"localhost", server.server->port()}, certificates().context("machine"));
    auto response = by_name.send({}, 5s);
    INFO((response ? "" : response.error().message));
    CHECK(response);
    HttpClient by_other_name({"ip6-localhost", server.server->port()},
                             certificates().context("machine"));
    CHECK_FALSE(by_other_name.send({}, 5s));

    // The same server through an address that its certificate does not have.
    ServerOptions options;
    TestHandler handler;
    options.address = "127.0.0.2";
    options.port = 0;
    auto second = HttpServer::listen(options, certificates().context("server"), handler);
    REQUIRE(second);
    std::thread thread([&] { (*second)->run(); });
    HttpClient client({"127.0.0.2", (*second)->port()}, certificates().context("machine"));
    auto refused = client.send({}, 5s);
    (*second)->stop();
    thread.join();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::operator_needed);
    CHECK_THAT(refused.error().message, Contains("certificate verify failed: IP address mismatch"));
}

TEST_CASE("a client whose certificate is expired, of no role or for servers is refused") {
    TestServer server;
    TempDir dir;
    const auto good = certificates().files("operator");
    const AuthorityFiles root{good.authority, good.authority.parent_path() / "ca.key"};
    const auto attempt = [&](const char* stem, const std::function<void(X509*)>& edit) {
        const auto pem = dir.path() / stem;
        forge(root, good.certificate, pem, edit);
        // TlsContext would refuse to load a certificate of no role: speak TLS without it.
        auto context = TlsContext::load(good, TlsSide::client);
        Certificates::must(context);
        SSL_CTX* ssl = (*context)->state().ssl.get();
        REQUIRE(SSL_CTX_use_certificate_file(ssl, pem.c_str(), SSL_FILETYPE_PEM) == 1);
        HttpClient client({"127.0.0.1", server.server->port()}, *context);
        auto response = client.send({}, 5s);
        REQUIRE_FALSE(response);
        CHECK(response.error().kind == ErrorKind::operator_needed);
        CHECK_THAT(response.error().message, Contains("the server refused our certificate"));
    };
    attempt("expired", [](X509* c) { X509_gmtime_adj(X509_getm_notAfter(c), -60); });
    attempt("future", [](X509* c) { X509_gmtime_adj(X509_getm_notBefore(c), 3600); });
    attempt("role", [](X509* c) {
        X509_NAME* name = X509_NAME_new();
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>("root:eve"), -1, -1, 0);
        X509_set_subject_name(c, name);
        X509_NAME_free(name);
    });
    attempt("two names", [](X509* c) {
        X509_NAME* name = X509_NAME_dup(X509_get_subject_name(c));
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>("operator:eve"), -1, -1,
                                   0);
        X509_set_subject_name(c, name);
        X509_NAME_free(name);
    });
    CHECK(server.handler.admitted == 0);

    // A server's certificate does not make a client: EKU and role both say no.
    const auto theirs = certificates().files("server");
    const Error error = refusal(server, theirs);
    CHECK_THAT(error.message, Contains("the server refused our certificate"));
    CHECK(server.handler.admitted == 0);
}

TEST_CASE("a client with no certificate is told that one is required") {
    TestServer server;
    auto context = TlsContext::load(certificates().files("operator"), TlsSide::client);
    REQUIRE(context);
    // A context with the trust but without the certificate.
    std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>> bare(SSL_CTX_new(TLS_client_method()));
    REQUIRE(SSL_CTX_load_verify_locations(
        bare.get(), certificates().files("operator").authority.c_str(), nullptr));
    std::swap(const_cast<TlsContext::State&>((*context)->state()).ssl, bare);
    HttpClient client({"127.0.0.1", server.server->port()}, *context);
    auto response = client.send({}, 5s);
    REQUIRE_FALSE(response);
    CHECK(response.error().kind == ErrorKind::operator_needed);
    CHECK_THAT(response.error().message, Contains("the server refused our certificate"));
    CHECK(server.handler.admitted == 0);
}

TEST_CASE("TLS 1.2 is refused") {
    TestServer server;
    auto context = TlsContext::load(certificates().files("operator"), TlsSide::client);
    REQUIRE(context);
    SSL_CTX* ssl = (*context)->state().ssl.get();
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(ssl, TLS1_2_VERSION);
    HttpClient client({"127.0.0.1", server.server->port()}, *context);
    auto response = client.send({}, 5s);
    REQUIRE_FALSE(response);
    CHECK_THAT(response.error().message, Contains("the server ended TLS"));
}
