// SPDX-License-Identifier: Apache-2.0
#include "user/seal/file_cipher.h"
#include "tests/catch.hpp"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::seal;

namespace {

Uuid id_of(uint8_t fill) {
    Uuid id;
    id.bytes.fill(std::byte{fill});
    return id;
}

struct Sealed {
    Bytes bytes;
    AuthTag tag{};
};

Sealed seal_with(FileSealer& sealer, SealPart part, std::string_view associated) {
    const Bytes plain(100, std::byte{7});
    Sealed sealed{Bytes(plain.size()), {}};
    const ByteView parts[] = {as_bytes(associated)};
    sealed.tag = sealer.seal_part(part, parts, plain, sealed.bytes);
    return sealed;
}

bool opens_with(FileOpener opener, const Sealed& sealed, SealPart part,
                std::string_view associated) {
    Bytes back(sealed.bytes.size());
    const ByteView parts[] = {as_bytes(associated)};
    return opener.open_part(part, parts, sealed.bytes, sealed.tag, back) &&
           back == Bytes(100, std::byte{7});
}

}  // namespace

TEST_CASE("a part opens with its key, ids, sealing, use, number and associated data only") {
    const MachineKey key = MachineKey::create(id_of(1));
    const FileIds ids{id_of(1), id_of(2), id_of(3)};
    FileSealer sealer(key, ids);
    const SealPart part{SealUse::block, 0};
    const Sealed sealed = seal_with(sealer, part, "where it belongs");
    const auto opener = [&](auto change) {
        MachineKey other = key.copy();
        FileIds other_ids = ids;
        Uuid seal = sealer.seal();
        change(other, other_ids, seal);
        return FileOpener(other, other_ids, seal);
    };
    const auto nothing = [](MachineKey&, FileIds&, Uuid&) {};
    CHECK(opens_with(opener(nothing), sealed, part, "where it belongs"));
    CHECK_FALSE(opens_with(opener(nothing), sealed, part, "where it belongt"));
    CHECK_FALSE(opens_with(opener(nothing), sealed, {SealUse::block, 1}, "where it belongs"));
    CHECK_FALSE(opens_with(opener(nothing), sealed, {SealUse::tail, 0}, "where it belongs"));
    const auto refused = [&](auto change) {
        CHECK_FALSE(opens_with(opener(change), sealed, part, "where it belongs"));
    };
    refused([](MachineKey& k, FileIds&, Uuid&) { k.key.span()[31] ^= std::byte{1}; });
    refused([](MachineKey& k, FileIds&, Uuid&) { k.id = id_of(9); });
    refused([](MachineKey&, FileIds& i, Uuid&) { i.machine = id_of(9); });
    refused([](MachineKey&, FileIds& i, Uuid&) { i.disk = id_of(9); });
    refused([](MachineKey&, FileIds& i, Uuid&) { i.segment = id_of(9); });
    refused([](MachineKey&, FileIds&, Uuid& s) { s = id_of(9); });
    for (size_t at = 0; at < sealed.bytes.size(); ++at) {
        Sealed damaged = sealed;
        damaged.bytes[at] ^= std::byte{1};
        CHECK_FALSE(opens_with(opener(nothing), damaged, part, "where it belongs"));
    }
}

TEST_CASE("two sealings of one segment have different keys") {
    const MachineKey key = MachineKey::create(id_of(1));
    const FileIds ids{id_of(1), id_of(2), id_of(3)};
    FileSealer first(key, ids), second(key, ids);
    CHECK(first.seal() != second.seal());
    CHECK(seal_with(first, {SealUse::block, 0}, "").bytes !=
          seal_with(second, {SealUse::block, 0}, "").bytes);
}

TEST_CASE("a secret that was moved from is empty, one that is assigned to is replaced") {
    Secret a(as_bytes("first")), b(as_bytes("second!"));
    a = std::move(b);
    CHECK(as_text(a.view()) == "second!");
    CHECK(b.size() == 0);
    CHECK(equal_secrets(a.view(), as_bytes("second!")));
    CHECK_FALSE(equal_secrets(a.view(), as_bytes("second?")));
    CHECK_FALSE(equal_secrets(a.view(), as_bytes("second")));
}
