// SPDX-License-Identifier: Apache-2.0
#include "user/seal/token.h"

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>

#include <algorithm>

namespace herald::seal {

namespace {

constexpr size_t kSlotsMax = 256;

std::string padded_text(const unsigned char* bytes, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(bytes), size);
    const size_t last = text.find_last_not_of(' ');
    return std::string(text.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

CK_BYTE* octets(ByteView bytes) {
    // The interface takes its inputs as pointers to what it does not write.
    return const_cast<CK_BYTE*>(reinterpret_cast<const CK_BYTE*>(bytes.data()));
}

const char* meaning(CK_RV rv) {
    switch (rv) {
        case CKR_PIN_INCORRECT:
            return "the PIN is wrong";
        case CKR_PIN_LOCKED:
            return "the PIN is locked";
        case CKR_PIN_LEN_RANGE:
            return "no PIN has this length";
        case CKR_TOKEN_NOT_PRESENT:
        case CKR_DEVICE_REMOVED:
            return "the token is gone";
        case CKR_MECHANISM_INVALID:
            return "it does not have AES key wrap";
        case CKR_KEY_FUNCTION_NOT_PERMITTED:
            return "the key may not wrap or unwrap";
        default:
            return "the token refused";
    }
}

class TokenRootKey : public RootKey {
  public:
    TokenRootKey(const Uuid& id, TokenPlace place) : RootKey(id), place_(std::move(place)) {}
    ~TokenRootKey() override {
        if (session_ != CK_INVALID_HANDLE) {
            p11_->C_Logout(session_);
            p11_->C_CloseSession(session_);
        }
        if (initialised_) p11_->C_Finalize(nullptr);
        if (module_) ::dlclose(module_);
    }

    Result<void> open(const Secret& pin) {
        auto loaded = load();
        if (!loaded) return loaded;
        auto slot = find_slot();
        if (!slot) return pass(slot);
        CK_RV rv = p11_->C_OpenSession(*slot, CKF_SERIAL_SESSION, nullptr, nullptr, &session_);
        if (rv != CKR_OK) return refuse("open a session", rv);
        rv = p11_->C_Login(session_, CKU_USER, octets(pin.view()), pin.size());
        if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN) return refuse("log in", rv);
        return find_key();
    }

    Result<Bytes> wrap(ByteView plain) override {
        auto handle = import(plain);
        if (!handle) return pass(handle);
        Bytes wrapped(plain.size() + 8);
        CK_ULONG size = wrapped.size();
        CK_MECHANISM mechanism{CKM_AES_KEY_WRAP, nullptr, 0};
        const CK_RV rv = p11_->C_WrapKey(session_, &mechanism, key_, *handle,
                                         reinterpret_cast<CK_BYTE*>(wrapped.data()), &size);
        p11_->C_DestroyObject(session_, *handle);
        if (rv != CKR_OK || size != wrapped.size()) return refuse("wrap a key", rv);
        return wrapped;
    }

    Result<Secret> unwrap(ByteView wrapped) override {
        if (wrapped.size() < 24) return fail(ErrorKind::corrupt, "the wrapped key does not open");
        CK_BBOOL yes = CK_TRUE;
        CK_BBOOL no = CK_FALSE;
        CK_OBJECT_CLASS kind = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_GENERIC_SECRET;
        CK_ATTRIBUTE attributes[] = {{CKA_CLASS, &kind, sizeof kind},
                                     {CKA_KEY_TYPE, &type, sizeof type},
                                     {CKA_TOKEN, &no, sizeof no},
                                     {CKA_SENSITIVE, &no, sizeof no},
                                     {CKA_EXTRACTABLE, &yes, sizeof yes}};
        CK_MECHANISM mechanism{CKM_AES_KEY_WRAP, nullptr, 0};
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        CK_RV rv = p11_->C_UnwrapKey(session_, &mechanism, key_, octets(wrapped), wrapped.size(),
                                     attributes, std::size(attributes), &handle);
        // A token says in one of many ways that the integrity check failed; a lost device or
        // session is the one thing that is not about these bytes.
        if (rv != CKR_OK && rv != CKR_DEVICE_REMOVED && rv != CKR_SESSION_HANDLE_INVALID &&
            rv != CKR_TOKEN_NOT_PRESENT && rv != CKR_MECHANISM_INVALID &&
            rv != CKR_KEY_FUNCTION_NOT_PERMITTED) {
            return fail(ErrorKind::corrupt, "token {} (error {:#x}): the wrapped key does not open",
                        place_.token, rv);
        }
        if (rv != CKR_OK) return refuse("unwrap a key", rv);
        Secret plain(wrapped.size() - 8);
        CK_ATTRIBUTE value{CKA_VALUE, plain.span().data(), plain.size()};
        rv = p11_->C_GetAttributeValue(session_, handle, &value, 1);
        p11_->C_DestroyObject(session_, handle);
        if (rv != CKR_OK || value.ulValueLen != plain.size()) return refuse("read a key", rv);
        return plain;
    }

  private:
    tl::unexpected<Error> refuse(const char* doing, CK_RV rv) const {
        return fail(ErrorKind::operator_needed, "{} on token {}: {} (error {:#x})", doing,
                    place_.token, meaning(rv), rv);
    }

    Result<void> load() {
        module_ = ::dlopen(place_.module.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (!module_) {
            return fail(ErrorKind::operator_needed, "load the PKCS#11 module {}: {}", place_.module,
                        ::dlerror());
        }
        const auto get_list =
            reinterpret_cast<CK_C_GetFunctionList>(::dlsym(module_, "C_GetFunctionList"));
        if (!get_list || get_list(&p11_) != CKR_OK || !p11_) {
            return fail(ErrorKind::operator_needed, "{} is not a PKCS#11 module", place_.module);
        }
        const CK_RV rv = p11_->C_Initialize(nullptr);
        // Somebody else's initialisation is not ours to undo.
        initialised_ = rv == CKR_OK;
        if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED) {
            return refuse("start its module", rv);
        }
        return {};
    }

    Result<CK_SLOT_ID> find_slot() {
        CK_SLOT_ID slots[kSlotsMax];
        CK_ULONG count = kSlotsMax;
        const CK_RV rv = p11_->C_GetSlotList(CK_TRUE, slots, &count);
        if (rv != CKR_OK) return refuse("list slots", rv);
        for (CK_ULONG i = 0; i < count; ++i) {
            CK_TOKEN_INFO info{};
            if (p11_->C_GetTokenInfo(slots[i], &info) != CKR_OK) continue;
            if (padded_text(info.label, sizeof info.label) == place_.token) return slots[i];
        }
        return fail(ErrorKind::operator_needed, "{} has no token with the label {}", place_.module,
                    place_.token);
    }

    Result<void> find_key() {
        CK_OBJECT_CLASS kind = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_AES;
        CK_ATTRIBUTE attributes[] = {{CKA_CLASS, &kind, sizeof kind},
                                     {CKA_KEY_TYPE, &type, sizeof type},
                                     {CKA_LABEL, place_.object.data(), place_.object.size()}};
        CK_RV rv = p11_->C_FindObjectsInit(session_, attributes, std::size(attributes));
        if (rv != CKR_OK) return refuse("look for its key", rv);
        CK_OBJECT_HANDLE found[2];
        CK_ULONG count = 0;
        rv = p11_->C_FindObjects(session_, found, 2, &count);
        p11_->C_FindObjectsFinal(session_);
        if (rv != CKR_OK) return refuse("look for its key", rv);
        if (count != 1) {
            return fail(ErrorKind::operator_needed, "token {} has {} AES keys with the label {}",
                        place_.token, count == 0 ? "no" : "several", place_.object);
        }
        key_ = found[0];
        return {};
    }

    // A machine key as an object of this session, so that the token can wrap it.
    Result<CK_OBJECT_HANDLE> import(ByteView plain) {
        CK_BBOOL yes = CK_TRUE;
        CK_BBOOL no = CK_FALSE;
        CK_OBJECT_CLASS kind = CKO_SECRET_KEY;
        CK_KEY_TYPE type = CKK_GENERIC_SECRET;
        CK_ATTRIBUTE attributes[] = {
            {CKA_CLASS, &kind, sizeof kind},     {CKA_KEY_TYPE, &type, sizeof type},
            {CKA_TOKEN, &no, sizeof no},         {CKA_SENSITIVE, &no, sizeof no},
            {CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_VALUE, octets(plain), plain.size()}};
        CK_OBJECT_HANDLE handle = CK_INVALID_HANDLE;
        const CK_RV rv = p11_->C_CreateObject(session_, attributes, std::size(attributes), &handle);
        if (rv != CKR_OK) return refuse("hand a key to it", rv);
        return handle;
    }

    TokenPlace place_;
    void* module_ = nullptr;
    CK_FUNCTION_LIST* p11_ = nullptr;
    bool initialised_ = false;
    CK_SESSION_HANDLE session_ = CK_INVALID_HANDLE;
    CK_OBJECT_HANDLE key_ = CK_INVALID_HANDLE;
};

}  // namespace

Result<std::unique_ptr<RootKey>> open_token_root(const Uuid& id, const TokenPlace& place,
                                                 const Secret& pin) {
    auto root = std::make_unique<TokenRootKey>(id, place);
    auto opened = root->open(pin);
    if (!opened) return pass(opened);
    return std::unique_ptr<RootKey>(std::move(root));
}

}  // namespace herald::seal
