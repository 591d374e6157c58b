// SPDX-License-Identifier: Apache-2.0
#include "user/seal/machine_key.h"

#include "user/seal/key_text.h"

namespace herald::seal {

namespace {

constexpr std::string_view kWhat = "herald-machine-key";

// What is wrapped: the ids with the key, so that they belong to each other.
struct Opened {
    std::array<std::byte, 16> machine;
    std::array<std::byte, 16> id;
    std::array<std::byte, kKeyBytes> key;
};
static_assert(sizeof(Opened) == 64);

}  // namespace

Result<WrappedKey> wrap_machine_key(const MachineKey& key, RootKey& root) {
    HERALD_ASSERT(key.key.size() == kKeyBytes);
    Secret plain(sizeof(Opened));
    std::copy_n(key.machine.bytes.begin(), 16, plain.span().begin());
    std::copy_n(key.id.bytes.begin(), 16, plain.span().begin() + 16);
    std::copy_n(key.key.view().begin(), kKeyBytes, plain.span().begin() + 32);
    auto bytes = root.wrap(plain.view());
    if (!bytes) return pass(bytes);
    WrappedKey wrapped{key.machine, key.id, root.id(), {}};
    HERALD_ASSERT(bytes->size() == wrapped.wrapped.size());
    std::copy(bytes->begin(), bytes->end(), wrapped.wrapped.begin());
    return wrapped;
}

Result<MachineKey> unwrap_machine_key(const WrappedKey& wrapped, RootKey& root) {
    const std::string name =
        fmt::format("key {} of machine {}", to_string(wrapped.id), to_string(wrapped.machine));
    if (wrapped.root != root.id()) {
        return fail(ErrorKind::operator_needed, "{}: root key {} wraps it; this is {}", name,
                    to_string(wrapped.root), to_string(root.id()));
    }
    auto plain = root.unwrap(wrapped.wrapped);
    if (!plain) return pass(plain, name);
    const ByteView bytes = plain->view();
    if (bytes.size() != sizeof(Opened) || !equal_secrets(bytes.first(16), wrapped.machine.bytes) ||
        !equal_secrets(bytes.subspan(16, 16), wrapped.id.bytes)) {
        return fail(ErrorKind::corrupt, "{}: what it wraps is the key of another machine or id",
                    name);
    }
    return MachineKey{wrapped.machine, wrapped.id, Secret(bytes.subspan(32))};
}

Result<WrappedKey> rewrap_machine_key(const WrappedKey& wrapped, RootKey& from, RootKey& to) {
    auto key = unwrap_machine_key(wrapped, from);
    if (!key) return pass(key);
    return wrap_machine_key(*key, to);
}

std::string format_machine_key(const WrappedKey& wrapped) {
    KeyTextWriter text(kWhat);
    text.field("machine", to_string(wrapped.machine));
    text.field("key", to_string(wrapped.id));
    text.field("root", to_string(wrapped.root));
    text.field_hex("wrapped", wrapped.wrapped);
    const Secret done = std::move(text).finish();
    return std::string(as_text(done.view()));
}

Result<WrappedKey> parse_machine_key(ByteView text, std::string name) {
    auto reader = KeyTextReader::open(text, kWhat, std::move(name));
    if (!reader) return pass(reader);
    WrappedKey wrapped;
    for (auto [field, id] : {std::pair{"machine", &wrapped.machine}, std::pair{"key", &wrapped.id},
                             std::pair{"root", &wrapped.root}}) {
        auto read = reader->field_id(field);
        if (!read) return pass(read);
        *id = *read;
    }
    auto bytes = reader->field_hex("wrapped", kWrappedBytes);
    if (!bytes) return pass(bytes);
    std::copy(bytes->view().begin(), bytes->view().end(), wrapped.wrapped.begin());
    auto at_end = reader->at_end();
    if (!at_end) return pass(at_end);
    return wrapped;
}

}  // namespace herald::seal
