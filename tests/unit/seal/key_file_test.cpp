// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/base/file.h"
#include "user/seal/key_text.h"
#include "user/seal/keyring.h"

using namespace herald;
using namespace herald::seal;

namespace {

std::unique_ptr<RootKey> opened(const RootKeyFile& file, const AskSecret& ask = nullptr) {
    auto root = open_root_key(file, "root", ask);
    INFO((root ? std::string() : root.error().message));
    REQUIRE(root);
    return std::move(*root);
}

AskSecret answer(std::string text) {
    return [text = std::move(text)](const std::string&) -> Result<Secret> {
        return Secret(as_bytes(text));
    };
}

constexpr ScryptCost kQuick{1 << 14, 8, 1};

}  // namespace

TEST_CASE("a machine key opens with the root key that wrapped it and no other") {
    auto root = opened(new_root_key());
    auto other = opened(new_root_key());
    const MachineKey key = MachineKey::create(Uuid::random());
    auto wrapped = wrap_machine_key(key, *root);
    REQUIRE(wrapped);
    const std::string text = format_machine_key(*wrapped);
    auto parsed = parse_machine_key(as_bytes(text), "m.key");
    REQUIRE(parsed);
    CHECK(format_machine_key(*parsed) == text);
    auto back = unwrap_machine_key(*parsed, *root);
    REQUIRE(back);
    CHECK(back->machine == key.machine);
    CHECK(back->id == key.id);
    CHECK(equal_secrets(back->key.view(), key.key.view()));

    auto wrong = unwrap_machine_key(*parsed, *other);
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().message.find(to_string(root->id())) != std::string::npos);
    parsed->root = other->id();
    CHECK_FALSE(unwrap_machine_key(*parsed, *other));
}

TEST_CASE("a machine key in the place of another one is refused by name") {
    auto root = opened(new_root_key());
    const MachineKey key = MachineKey::create(Uuid::random());
    auto wrapped = wrap_machine_key(key, *root);
    REQUIRE(wrapped);
    WrappedKey moved = *wrapped;
    moved.machine = Uuid::random();
    auto refused = unwrap_machine_key(moved, *root);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("another machine") != std::string::npos);
    moved = *wrapped;
    moved.id = Uuid::random();
    CHECK_FALSE(unwrap_machine_key(moved, *root));
}

TEST_CASE("rotation wraps the same key anew") {
    auto old_root = opened(new_root_key());
    auto new_root = opened(new_root_key());
    const MachineKey key = MachineKey::create(Uuid::random());
    auto wrapped = wrap_machine_key(key, *old_root);
    REQUIRE(wrapped);
    auto again = rewrap_machine_key(*wrapped, *old_root, *new_root);
    REQUIRE(again);
    CHECK(again->id == key.id);
    auto back = unwrap_machine_key(*again, *new_root);
    REQUIRE(back);
    CHECK(equal_secrets(back->key.view(), key.key.view()));
    CHECK_FALSE(unwrap_machine_key(*again, *old_root));
}

TEST_CASE("every changed byte of a key file is found") {
    auto root = opened(new_root_key());
    auto wrapped = wrap_machine_key(MachineKey::create(Uuid::random()), *root);
    REQUIRE(wrapped);
    const RootKeyFile file = new_root_key();
    const Secret root_secret = format_root_key(file);
    const std::string machine_text = format_machine_key(*wrapped);
    const std::string root_text(as_text(root_secret.view()));
    const auto parses = [&](bool machine, const std::string& text) {
        return machine ? parse_machine_key(as_bytes(text), "m").has_value()
                       : parse_root_key(as_bytes(text), "r").has_value();
    };
    for (const bool machine : {true, false}) {
        const std::string text = machine ? machine_text : root_text;
        REQUIRE(parses(machine, text));
        for (size_t at = 0; at < text.size(); ++at) {
            std::string damaged = text;
            damaged[at] = char(damaged[at] ^ 1);
            if (parses(machine, damaged)) FAIL("byte " << at << " of\n" << text);
            if (parses(machine, text.substr(0, at))) FAIL("cut at " << at);
        }
        CHECK_FALSE(parses(machine, text + "\n"));
    }
    CHECK_FALSE(parses(true, root_text));
    CHECK_FALSE(parses(false, machine_text));
}

TEST_CASE("a key file of a newer version is refused by its number") {
    const std::string text = "herald-root-key 2\nroot x\nsha256 " + std::string(64, '0') + "\n";
    auto parsed = parse_root_key(as_bytes(text), "r");
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().kind == ErrorKind::operator_needed);
    CHECK(parsed.error().message.find("version 2") != std::string::npos);
}

TEST_CASE("a passphrase opens what it wrapped, and a wrong one is named") {
    auto file = new_passphrase_root(as_bytes("correct horse"), kQuick);
    REQUIRE(file);
    const Secret text = format_root_key(*file);
    auto parsed = parse_root_key(text.view(), "r");
    REQUIRE(parsed);
    auto root = opened(*parsed, answer("correct horse"));
    auto wrapped = wrap_machine_key(MachineKey::create(Uuid::random()), *root);
    REQUIRE(wrapped);
    CHECK(unwrap_machine_key(*wrapped, *opened(*parsed, answer("correct horse"))));
    auto wrong = open_root_key(*parsed, "r", answer("wrong horse"));
    REQUIRE_FALSE(wrong);
    CHECK(wrong.error().message.find("passphrase is wrong") != std::string::npos);
    CHECK_FALSE(open_root_key(*parsed, "r", nullptr));
}

TEST_CASE("scrypt costs that are too small, too large or unusual are refused") {
    auto file = new_passphrase_root(as_bytes("x"), kQuick);
    REQUIRE(file);
    const auto parses = [&](ScryptCost cost) {
        file->cost = cost;
        const Secret text = format_root_key(*file);
        return parse_root_key(text.view(), "r").has_value();
    };
    CHECK(parses({1 << 14, 8, 1}));
    CHECK(parses({1 << 20, 8, 1}));
    CHECK_FALSE(parses({1 << 13, 8, 1}));
    CHECK_FALSE(parses({1 << 21, 8, 1}));
    CHECK_FALSE(parses({(1 << 15) + 1, 8, 1}));
    CHECK_FALSE(parses({1 << 15, 16, 1}));
    CHECK_FALSE(parses({1 << 15, 8, 2}));
}

TEST_CASE("a root key that others may read, or that is no file, is refused by name") {
    herald::test::TempDir dir;
    const auto path = dir.path() / "root.key";
    const Secret text = format_root_key(new_root_key());
    REQUIRE(replace_file(path, text.view(), 0600));
    CHECK(open_root_key(path, nullptr));
    for (const mode_t mode : {0640u, 0604u, 0620u, 0602u, 0666u, 0700u}) {
        REQUIRE(::chmod(path.c_str(), mode) == 0);
        auto refused = open_root_key(path, nullptr);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.find("root.key: its mode is") != std::string::npos);
    }
    REQUIRE(::chmod(path.c_str(), 0400) == 0);
    CHECK(open_root_key(path, nullptr));
    if (::geteuid() == 0) {
        REQUIRE(::chown(path.c_str(), 1, 1) == 0);
        CHECK_FALSE(open_root_key(path, nullptr));
    }
    CHECK_FALSE(open_root_key(dir.path(), nullptr));
    CHECK_FALSE(open_root_key(dir.path() / "none", nullptr));
}

TEST_CASE("a keyring has the keys its root opens and names those it does not") {
    herald::test::TempDir dir;
    const RootKeyFile root_file = new_root_key();
    REQUIRE(replace_file(dir.path() / "root", format_root_key(root_file).view()));
    auto root = opened(root_file);
    auto other = opened(new_root_key());
    const auto keep = [&](const char* name, RootKey& by) {
        const MachineKey key = MachineKey::create(Uuid::random());
        auto wrapped = wrap_machine_key(key, by);
        REQUIRE(wrapped);
        REQUIRE(replace_file(dir.path() / "keys" / name, as_bytes(format_machine_key(*wrapped))));
        return std::pair(key.machine, key.id);
    };
    std::filesystem::create_directory(dir.path() / "keys");
    const auto [machine, id] = keep("a.key", *root);
    const auto [other_machine, other_id] = keep("b.key", *other);
    REQUIRE(replace_file(dir.path() / "keys/c.key", as_bytes("rubbish")));
    auto keyring = open_keyring({dir.path() / "root", dir.path() / "keys", {}});
    REQUIRE(keyring);
    CHECK(keyring->size() == 1);
    CHECK(keyring->find(machine, id));
    CHECK_FALSE(keyring->find(other_machine, id));
    auto unusable = keyring->find(other_machine, other_id);
    REQUIRE_FALSE(unusable);
    CHECK(unusable.error().message.find(to_string(other->id())) != std::string::npos);
    CHECK_FALSE(keyring->find(machine, Uuid::random()));
    CHECK_FALSE(open_keyring({dir.path() / "root", dir.path() / "keys/b.key", {}}));
}

TEST_CASE("a passphrase is the first line of a file that is nobody else's") {
    herald::test::TempDir dir;
    const auto path = dir.path() / "passphrase";
    REQUIRE(replace_file(path, as_bytes("correct horse\nsecond\n")));
    auto read = read_secret_file(path);
    REQUIRE(read);
    CHECK(as_text(read->view()) == "correct horse");
    REQUIRE(::chmod(path.c_str(), 0644) == 0);
    CHECK_FALSE(read_secret_file(path));
    REQUIRE(replace_file(path, as_bytes("\n")));
    CHECK_FALSE(read_secret_file(path));
}
