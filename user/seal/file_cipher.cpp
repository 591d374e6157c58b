// SPDX-License-Identifier: Apache-2.0
#include "user/seal/file_cipher.h"

#include <atomic>
#include <ctime>

#include "user/base/digest.h"
#include "user/seal/gcm.h"
#include "user/seal/primitives.h"

namespace herald::seal {

namespace {

constexpr std::string_view kFileKeyInfo = "herald hrl 3 segment key";

// release; pairs with the acquire in seal_part(): an observer is complete before it is heard of.
std::atomic<SealObserver*> seal_observer = nullptr;

void append(Bytes& to, ByteView from) { to.insert(to.end(), from.begin(), from.end()); }

Secret file_key(const MachineKey& key, const FileIds& ids, const Uuid& seal) {
    HERALD_ASSERT(key.key.size() == kKeyBytes);
    Bytes salt;
    append(salt, ids.segment.bytes);
    append(salt, seal.bytes);
    Bytes info;
    append(info, as_bytes(kFileKeyInfo));
    append(info, ids.machine.bytes);
    append(info, ids.disk.bytes);
    append(info, key.id.bytes);
    return hkdf_sha256(key.key.view(), salt, info, kKeyBytes);
}

Nonce nonce_of(SealPart part) {
    Nonce nonce;
    store_le(nonce.data(), uint32_t(part.use));
    store_le(nonce.data() + 4, part.number);
    return nonce;
}

}  // namespace

MachineKey MachineKey::create(const Uuid& machine) {
    return {machine, Uuid::random(), random_secret(kKeyBytes)};
}

void set_seal_observer(SealObserver* observer) {
    seal_observer.store(observer, std::memory_order_release);
}

Uuid fresh_seal() {
    const Secret random = random_secret(32);
    Bytes mixed(random.view().begin(), random.view().end());
    for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_BOOTTIME}) {
        timespec now{};
        clock_gettime(clock, &now);
        append(mixed, std::as_bytes(std::span(&now, 1)));
    }
    const auto hash = sha256(mixed);
    Uuid seal;
    std::copy_n(hash.begin(), seal.bytes.size(), seal.bytes.begin());
    return seal;
}

struct FileSealer::State {
    explicit State(const Secret& key) : gcm(key.view(), true), key_digest(sha256(key.view())) {}
    Gcm gcm;
    std::array<std::byte, 32> key_digest;
    // What comes next of each use: a part is sealed once, blocks in ascending order.
    uint64_t next_number[4] = {};
};

FileSealer::FileSealer(const MachineKey& key, const FileIds& ids, std::optional<Uuid> seal)
    : key_id_(key.id),
      seal_(seal ? *seal : fresh_seal()),
      state_(std::make_unique<State>(file_key(key, ids, seal_))) {}
FileSealer::FileSealer(FileSealer&&) noexcept = default;
FileSealer& FileSealer::operator=(FileSealer&&) noexcept = default;
FileSealer::~FileSealer() = default;

AuthTag FileSealer::seal_part(SealPart part, std::span<const ByteView> associated, ByteView plain,
                              ByteSpan to) {
    HERALD_ASSERT(plain.size() == to.size());
    uint64_t& next = state_->next_number[uint32_t(part.use)];
    HERALD_ASSERT(part.number == next);
    next += 1;
    const Nonce nonce = nonce_of(part);
    SealObserver* observer = seal_observer.load(std::memory_order_acquire);
    if (observer) observer->sealed(state_->key_digest, nonce);
    state_->gcm.begin(nonce, associated);
    state_->gcm.update(plain, to.data());
    HERALD_ASSERT(state_->gcm.finish());
    return state_->gcm.tag();
}

struct FileOpener::State {
    Gcm gcm;
};

FileOpener::FileOpener(const MachineKey& key, const FileIds& ids, const Uuid& seal)
    : state_(std::make_unique<State>(State{Gcm(file_key(key, ids, seal).view(), false)})) {}
FileOpener::FileOpener(FileOpener&&) noexcept = default;
FileOpener& FileOpener::operator=(FileOpener&&) noexcept = default;
FileOpener::~FileOpener() = default;

bool FileOpener::open_part(SealPart part, std::span<const ByteView> associated, ByteView sealed,
                           const AuthTag& tag, ByteSpan to) {
    HERALD_ASSERT(sealed.size() == to.size());
    state_->gcm.begin(nonce_of(part), associated);
    state_->gcm.update(sealed, to.data());
    state_->gcm.expect(tag);
    return state_->gcm.finish();
}

}  // namespace herald::seal
