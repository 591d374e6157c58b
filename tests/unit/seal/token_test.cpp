// SPDX-License-Identifier: Apache-2.0
// A root key on a token: a software token, made for each test, in a folder of its own. The
// test makes the key through the module, as an operator's tool would.
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "tests/unit/seal/golden_keys.h"

using namespace herald;
using namespace herald::seal;

namespace {

constexpr const char* kModule = "/usr/lib/softhsm/libsofthsm2.so";
constexpr const char* kPin = "4711";

AskSecret pin(std::string text) {
    return [text = std::move(text)](const std::string&) -> Result<Secret> {
        return Secret(as_bytes(text));
    };
}

// Makes an AES-256 key that cannot leave the token; one of these bytes where some are given.
void make_key(const char* label, const Secret* value = nullptr) {
    void* module = ::dlopen(kModule, RTLD_NOW | RTLD_LOCAL);
    REQUIRE(module);
    CK_FUNCTION_LIST* p11 = nullptr;
    const auto get_list =
        reinterpret_cast<CK_C_GetFunctionList>(::dlsym(module, "C_GetFunctionList"));
    REQUIRE(get_list(&p11) == CKR_OK);
    REQUIRE(p11->C_Initialize(nullptr) == CKR_OK);
    CK_SLOT_ID slots[8];
    CK_ULONG count = 8;
    REQUIRE(p11->C_GetSlotList(CK_TRUE, slots, &count) == CKR_OK);
    CK_SESSION_HANDLE session = 0;
    REQUIRE(p11->C_OpenSession(slots[0], CKF_SERIAL_SESSION | CKF_RW_SESSION, nullptr, nullptr,
                               &session) == CKR_OK);
    CK_BYTE pin_bytes[] = {'4', '7', '1', '1'};
    REQUIRE(p11->C_Login(session, CKU_USER, pin_bytes, sizeof pin_bytes) == CKR_OK);
    CK_BBOOL yes = CK_TRUE;
    CK_BBOOL no = CK_FALSE;
    CK_ULONG size = 32;
    std::string name = label;
    std::vector<CK_ATTRIBUTE> attributes = {
        {CKA_TOKEN, &yes, sizeof yes},     {CKA_SENSITIVE, &yes, sizeof yes},
        {CKA_EXTRACTABLE, &no, sizeof no}, {CKA_WRAP, &yes, sizeof yes},
        {CKA_UNWRAP, &yes, sizeof yes},    {CKA_LABEL, name.data(), name.size()}};
    CK_OBJECT_HANDLE key = 0;
    if (value) {
        CK_OBJECT_CLASS kind = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_AES;
        Secret bytes = value->copy();
        attributes.push_back({CKA_CLASS, &kind, sizeof kind});
        attributes.push_back({CKA_KEY_TYPE, &type, sizeof type});
        attributes.push_back({CKA_VALUE, bytes.span().data(), bytes.size()});
        REQUIRE(p11->C_CreateObject(session, attributes.data(), attributes.size(), &key) == CKR_OK);
    } else {
        CK_MECHANISM mechanism{CKM_AES_KEY_GEN, nullptr, 0};
        attributes.push_back({CKA_VALUE_LEN, &size, sizeof size});
        REQUIRE(p11->C_GenerateKey(session, &mechanism, attributes.data(), attributes.size(),
                                   &key) == CKR_OK);
    }
    p11->C_CloseSession(session);
    p11->C_Finalize(nullptr);
    ::dlclose(module);
}

// A token named "herald test" in `dir`.
void make_token(const std::filesystem::path& dir) {
    std::filesystem::create_directory(dir / "tokens");
    std::ofstream(dir / "conf") << "directories.tokendir = " << (dir / "tokens").native()
                                << "\nobjectstore.backend = file\nlog.level = ERROR\n";
    ::setenv("SOFTHSM2_CONF", (dir / "conf").c_str(), 1);
    REQUIRE(std::system("softhsm2-util --init-token --free --label 'herald test' --pin 4711 "
                        "--so-pin 0815 > /dev/null") == 0);
}

bool no_module() {
    std::error_code none;
    if (!std::filesystem::exists(kModule, none)) {
        std::puts("SKIPPED: softhsm2 is not installed");
        const char* tier = std::getenv("HERALD_TIER");
        if (tier && std::string(tier) != "check") FAIL("softhsm2 is wanted in this tier");
        return true;
    }
    return false;
}

}  // namespace

TEST_CASE("a root key on a token wraps and unwraps, and what is wrong is named") {
    if (no_module()) return;
    herald::test::TempDir dir;
    make_token(dir.path());
    make_key("root");
    const RootKeyFile file = new_token_root({kModule, "herald test", "root"});
    const Secret text = format_root_key(file);
    auto parsed = parse_root_key(text.view(), "r");
    REQUIRE(parsed);
    const MachineKey key = MachineKey::create(Uuid::random());
    WrappedKey wrapped;
    {
        auto root = open_root_key(*parsed, "r", pin(kPin));
        INFO((root ? std::string() : root.error().message));
        REQUIRE(root);
        auto made = wrap_machine_key(key, **root);
        INFO((made ? std::string() : made.error().message));
        REQUIRE(made);
        wrapped = *made;
    }
    auto root = open_root_key(*parsed, "r", pin(kPin));
    REQUIRE(root);
    auto back = unwrap_machine_key(wrapped, **root);
    INFO((back ? std::string() : back.error().message));
    REQUIRE(back);
    CHECK(equal_secrets(back->key.view(), key.key.view()));
    wrapped.wrapped[40] ^= std::byte{1};
    auto damaged = unwrap_machine_key(wrapped, **root);
    REQUIRE_FALSE(damaged);
    CHECK(damaged.error().kind == ErrorKind::corrupt);
    wrapped.wrapped[40] ^= std::byte{1};

    // Rotation from the token to a file.
    auto file_root = open_root_key(new_root_key(), "f", nullptr);
    REQUIRE(file_root);
    auto moved = rewrap_machine_key(wrapped, **root, **file_root);
    REQUIRE(moved);
    CHECK(unwrap_machine_key(*moved, **file_root));
    root->reset();

    const auto refused = [](const RootKeyFile& from, const char* typed) {
        auto result = open_root_key(from, "r", pin(typed));
        REQUIRE_FALSE(result);
        CHECK(result.error().kind == ErrorKind::operator_needed);
        return result.error().message;
    };
    CHECK(refused(*parsed, "9999").find("the PIN is wrong") != std::string::npos);
    CHECK(refused(new_token_root({kModule, "no such", "root"}), kPin).find("no such") !=
          std::string::npos);
    CHECK(refused(new_token_root({kModule, "herald test", "other"}), kPin).find("other") !=
          std::string::npos);
    CHECK(refused(new_token_root({"/no/module.so", "herald test", "root"}), kPin)
              .find("/no/module.so") != std::string::npos);
}

TEST_CASE("the golden key files of a token open with its key") {
    if (no_module()) return;
    RootKeyFile file = new_token_root({kModule, "herald test", "root"});
    file.id = seal::test::golden_id(0x23);
    const Secret text = format_root_key(file);
    const Bytes golden = seal::test::golden_file("token.root", text.view());
    CHECK(as_text(golden) == as_text(text.view()));
    auto parsed = parse_root_key(golden, "token.root");
    REQUIRE(parsed);

    herald::test::TempDir dir;
    make_token(dir.path());
    const Secret token_key = seal::test::golden_token_key();
    make_key("root", &token_key);
    auto root = open_root_key(*parsed, "token.root", pin(kPin));
    INFO((root ? std::string() : root.error().message));
    REQUIRE(root);
    auto written = wrap_machine_key(seal::test::golden_machine_key(), **root);
    REQUIRE(written);
    const std::string written_text = format_machine_key(*written);
    const Bytes golden_key = seal::test::golden_file("token.key", as_bytes(written_text));
    CHECK(as_text(golden_key) == written_text);
    auto wrapped = parse_machine_key(golden_key, "token.key");
    REQUIRE(wrapped);
    auto key = unwrap_machine_key(*wrapped, **root);
    REQUIRE(key);
    CHECK(equal_secrets(key->key.view(), seal::test::golden_machine_key().key.view()));
}
