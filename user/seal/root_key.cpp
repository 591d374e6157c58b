// SPDX-License-Identifier: Apache-2.0
#include "user/seal/root_key.h"

#include <bit>
#include <charconv>

#include "user/seal/key_text.h"
#include "user/seal/token.h"

namespace herald::seal {

namespace {

constexpr std::string_view kWhat = "herald-root-key";
constexpr std::string_view kCheckInfo = "herald root key check";
constexpr size_t kCheckBytes = 16;
constexpr size_t kSaltBytes = 16;
constexpr uint64_t kScryptNMin = 1u << 14;
constexpr uint64_t kScryptNMax = 1u << 20;
constexpr size_t kLabelBytesMax = 32;  // CK_TOKEN_INFO has no more
constexpr size_t kPathBytesMax = 255;

class MemoryRootKey : public RootKey {
  public:
    MemoryRootKey(const Uuid& id, Secret key) : RootKey(id), key_(std::move(key)) {}
    Result<Bytes> wrap(ByteView plain) override { return wrap_key(key_.view(), plain); }
    Result<Secret> unwrap(ByteView wrapped) override { return unwrap_key(key_.view(), wrapped); }

  private:
    Secret key_;
};

Secret check_of(const Secret& key, const Uuid& id) {
    return hkdf_sha256(key.view(), id.bytes, as_bytes(kCheckInfo), kCheckBytes);
}

Result<ScryptCost> parse_cost(std::string_view text, const KeyTextReader& reader) {
    uint64_t numbers[3] = {};
    const char* at = text.data();
    const char* const end = at + text.size();
    for (int i = 0; i < 3; ++i) {
        if (i != 0 && (at == end || *at++ != ' ')) return reader.refuse("its scrypt is not N r p");
        const auto read = std::from_chars(at, end, numbers[i]);
        if (read.ec != std::errc()) return reader.refuse("its scrypt is not N r p");
        at = read.ptr;
    }
    const auto [n, r, p] = numbers;
    const bool good = std::has_single_bit(n) && n >= kScryptNMin && n <= kScryptNMax && r == 8 &&
                      p == 1 && text == fmt::format("{} {} {}", n, r, p);
    if (!good) return reader.refuse(fmt::format("scrypt with '{}' is not allowed", text));
    return ScryptCost{n, uint32_t(r), uint32_t(p)};
}

Result<void> parse_file(KeyTextReader& reader, RootKeyFile& file) {
    auto key = reader.field_hex("key", kKeyBytes);
    if (!key) return pass(key);
    file.key = std::move(*key);
    auto check = reader.field_hex("check", kCheckBytes);
    if (!check) return pass(check);
    file.check = std::move(*check);
    return {};
}

Result<void> parse_passphrase(KeyTextReader& reader, RootKeyFile& file) {
    auto text = reader.field("scrypt");
    if (!text) return pass(text);
    auto cost = parse_cost(*text, reader);
    if (!cost) return pass(cost);
    file.cost = *cost;
    auto salt = reader.field_hex("salt", kSaltBytes);
    if (!salt) return pass(salt);
    file.salt = std::move(*salt);
    auto check = reader.field_hex("check", kCheckBytes);
    if (!check) return pass(check);
    file.check = std::move(*check);
    return {};
}

Result<void> parse_token(KeyTextReader& reader, RootKeyFile& file) {
    const auto take = [&](std::string_view name, std::string& to, size_t max) -> Result<void> {
        auto value = reader.field(name);
        if (!value) return pass(value);
        if (value->size() > max) return reader.refuse(fmt::format("its {} is too long", name));
        to = *value;
        return {};
    };
    auto module = take("module", file.place.module, kPathBytesMax);
    if (!module) return module;
    auto token = take("token", file.place.token, kLabelBytesMax);
    if (!token) return token;
    return take("object", file.place.object, kLabelBytesMax);
}

}  // namespace

Result<RootKeyFile> parse_root_key(ByteView text, std::string name) {
    auto reader = KeyTextReader::open(text, kWhat, std::move(name));
    if (!reader) return pass(reader);
    RootKeyFile file;
    auto id = reader->field_id("root");
    if (!id) return pass(id);
    file.id = *id;
    auto source = reader->field("source");
    if (!source) return pass(source);
    Result<void> parsed;
    if (*source == "file") {
        file.source = RootSource::file;
        parsed = parse_file(*reader, file);
    } else if (*source == "passphrase") {
        file.source = RootSource::passphrase;
        parsed = parse_passphrase(*reader, file);
    } else if (*source == "token") {
        file.source = RootSource::token;
        parsed = parse_token(*reader, file);
    } else {
        return reader->refuse(fmt::format("its source is '{}'", *source));
    }
    if (!parsed) return pass(parsed);
    auto at_end = reader->at_end();
    if (!at_end) return pass(at_end);
    return file;
}

Secret format_root_key(const RootKeyFile& file) {
    KeyTextWriter text(kWhat);
    text.field("root", to_string(file.id));
    switch (file.source) {
        case RootSource::file:
            text.field("source", "file");
            text.field_hex("key", file.key.view());
            text.field_hex("check", file.check.view());
            break;
        case RootSource::passphrase:
            text.field("source", "passphrase");
            text.field("scrypt", fmt::format("{} {} {}", file.cost.n, file.cost.r, file.cost.p));
            text.field_hex("salt", file.salt.view());
            text.field_hex("check", file.check.view());
            break;
        case RootSource::token:
            text.field("source", "token");
            text.field("module", file.place.module);
            text.field("token", file.place.token);
            text.field("object", file.place.object);
            break;
    }
    return std::move(text).finish();
}

RootKeyFile new_root_key() {
    RootKeyFile file;
    file.id = Uuid::random();
    file.source = RootSource::file;
    file.key = random_secret(kKeyBytes);
    file.check = check_of(file.key, file.id);
    return file;
}

Result<RootKeyFile> new_passphrase_root(ByteView passphrase, const ScryptCost& cost) {
    RootKeyFile file;
    file.id = Uuid::random();
    file.source = RootSource::passphrase;
    file.cost = cost;
    file.salt = random_secret(kSaltBytes);
    auto key = scrypt(passphrase, file.salt.view(), cost, kKeyBytes);
    if (!key) return pass(key);
    file.check = check_of(*key, file.id);
    return file;
}

RootKeyFile new_token_root(const TokenPlace& place) {
    RootKeyFile file;
    file.id = Uuid::random();
    file.source = RootSource::token;
    file.place = place;
    return file;
}

Result<std::unique_ptr<RootKey>> open_root_key(const RootKeyFile& file, const std::string& name,
                                               const AskSecret& ask) {
    if (file.source == RootSource::file) {
        if (!equal_secrets(check_of(file.key, file.id).view(), file.check.view())) {
            return fail(ErrorKind::corrupt, "{}: its key is not the one its check belongs to",
                        name);
        }
        return std::unique_ptr<RootKey>(std::make_unique<MemoryRootKey>(file.id, file.key.copy()));
    }
    if (!ask) {
        return fail(ErrorKind::operator_needed, "{}: it needs a passphrase or PIN; give one", name);
    }
    if (file.source == RootSource::token) {
        auto pin = ask(fmt::format("PIN of token {}", file.place.token));
        if (!pin) return pass(pin);
        return open_token_root(file.id, file.place, *pin);
    }
    auto passphrase = ask(fmt::format("passphrase of root key {}", to_string(file.id)));
    if (!passphrase) return pass(passphrase);
    auto key = scrypt(passphrase->view(), file.salt.view(), file.cost, kKeyBytes);
    if (!key) return pass(key);
    if (!equal_secrets(check_of(*key, file.id).view(), file.check.view())) {
        return fail(ErrorKind::operator_needed, "{}: the passphrase is wrong", name);
    }
    return std::unique_ptr<RootKey>(std::make_unique<MemoryRootKey>(file.id, std::move(*key)));
}

}  // namespace herald::seal
