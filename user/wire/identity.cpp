// SPDX-License-Identifier: Apache-2.0
#include <openssl/x509.h>

#include "user/wire/tls.h"
#include "user/wire/tls_state.h"

namespace herald::wire {
namespace {

// X.520 allows a common name 64 characters; "operator:" takes nine of them.
constexpr size_t kNameBytesMax = 55;

constexpr std::string_view kMachine = "machine:";
constexpr std::string_view kOperator = "operator:";
constexpr std::string_view kServer = "server:";

bool is_plain(std::string_view name) {
    for (const char c : name) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && std::string_view("._-@ :").find(c) == std::string_view::npos)
            return false;
    }
    return true;
}

}  // namespace

Result<Identity> parse_identity(std::string_view common_name) {
    Identity identity;
    std::string_view prefix;
    if (common_name.starts_with(kMachine)) {
        identity.role = Role::machine;
        prefix = kMachine;
    } else if (common_name.starts_with(kOperator)) {
        identity.role = Role::operator_;
        prefix = kOperator;
    } else if (common_name.starts_with(kServer)) {
        identity.role = Role::server;
        prefix = kServer;
    } else {
        return fail(ErrorKind::operator_needed,
                    "'{}' names no role: machine:, operator: or server: expected",
                    common_name.substr(0, 64));
    }
    const std::string_view name = common_name.substr(prefix.size());
    if (name.empty() || name.size() > kNameBytesMax || !is_plain(name))
        return fail(ErrorKind::operator_needed,
                    "the name after '{}' must be 1 to {} plain characters", prefix, kNameBytesMax);
    if (identity.role == Role::machine) {
        auto machine = Uuid::parse(name);
        if (!machine) return pass(machine, "machine certificate");
        if (machine->is_nil())
            return fail(ErrorKind::operator_needed, "machine certificate: the id is nil");
        identity.machine = *machine;
    }
    identity.name = name;
    return identity;
}

std::string to_string(const Identity& identity) {
    switch (identity.role) {
        case Role::machine:
            return std::string(kMachine) + to_string(identity.machine);
        case Role::operator_:
            return std::string(kOperator) + identity.name;
        case Role::server:
            return std::string(kServer) + identity.name;
    }
    return {};
}

Result<Identity> identity_of(const X509* certificate) {
    const X509_NAME* subject = X509_get_subject_name(certificate);
    const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0) return fail(ErrorKind::operator_needed, "the certificate has no common name");
    if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return fail(ErrorKind::operator_needed, "the certificate has several common names");
    unsigned char* text = nullptr;
    const int bytes =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (bytes < 0) return fail(ErrorKind::operator_needed, "the common name is not readable");
    const std::string name(reinterpret_cast<const char*>(text), static_cast<size_t>(bytes));
    OPENSSL_free(text);
    return parse_identity(name);
}

}  // namespace herald::wire
