// SPDX-License-Identifier: Apache-2.0
// Golden key files: they are opened for good; what this code writes today is the same, byte for
// byte. The format is frozen: docs/formats/keys.md. That of a token is opened in token_test.cpp.
#include "tests/unit/seal/golden_keys.h"

#include "tests/temp_dir.h"

using namespace herald;
using namespace herald::seal;
using namespace herald::seal::test;

namespace {

AskSecret phrase() {
    return [](const std::string&) -> Result<Secret> { return Secret(as_bytes(kGoldenPassphrase)); };
}

Secret check_of(const Secret& key, const Uuid& id) {
    return hkdf_sha256(key.view(), id.bytes, as_bytes("herald root key check"), 16);
}

RootKeyFile file_root() {
    RootKeyFile file;
    file.id = golden_id(0x21);
    file.source = RootSource::file;
    file.key = golden_bytes(0x20, kKeyBytes);
    file.check = check_of(file.key, file.id);
    return file;
}

RootKeyFile passphrase_root() {
    RootKeyFile file;
    file.id = golden_id(0x22);
    file.source = RootSource::passphrase;
    file.salt = golden_bytes(0x40, 16);
    auto key = scrypt(as_bytes(kGoldenPassphrase), file.salt.view(), file.cost, kKeyBytes);
    REQUIRE(key);
    file.check = check_of(*key, file.id);
    return file;
}

// Opens NAME.root as a user's file, and with it NAME.key.
void opens(const std::string& name) {
    herald::test::TempDir dir;
    const auto path = dir.path() / "root.key";
    REQUIRE(replace_file(path, golden_file(name + ".root", {}), 0600));
    auto root = open_root_key(path, phrase());
    INFO(name << ": " << (root ? "" : root.error().message));
    REQUIRE(root);
    auto wrapped = parse_machine_key(golden_file(name + ".key", {}), name);
    REQUIRE(wrapped);
    auto key = unwrap_machine_key(*wrapped, **root);
    REQUIRE(key);
    CHECK(key->machine == golden_machine_key().machine);
    CHECK(key->id == golden_machine_key().id);
    CHECK(equal_secrets(key->key.view(), golden_machine_key().key.view()));
}

void written_today_is(const std::string& name, const RootKeyFile& file) {
    const Secret text = format_root_key(file);
    const Bytes golden_root = golden_file(name + ".root", text.view());
    CHECK(as_text(golden_root) == as_text(text.view()));
    auto root = open_root_key(file, name, phrase());
    REQUIRE(root);
    auto wrapped = wrap_machine_key(golden_machine_key(), **root);
    REQUIRE(wrapped);
    const std::string key = format_machine_key(*wrapped);
    const Bytes golden_key = golden_file(name + ".key", as_bytes(key));
    CHECK(as_text(golden_key) == key);
}

}  // namespace

TEST_CASE("golden key files are what is written today") {
    written_today_is("file", file_root());
    written_today_is("passphrase", passphrase_root());
    CHECK(passphrase_root().cost.n == 131072);
}

TEST_CASE("golden key files open, and hold the key of the golden journals") {
    opens("file");
    opens("passphrase");
}
