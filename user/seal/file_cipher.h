// SPDX-License-Identifier: Apache-2.0
// FileSealer and FileOpener: AES-256-GCM for the parts of one sealed file, under a key that belongs
// to this file alone: derived from the machine's key, the file's ids and the id of its sealing.
// Promise: nonce_once: a sealer draws the id of its sealing anew and seals each part once (a
// second time asserts), so no key meets a nonce twice, whatever is retried, cut or reverted.
// Callers: one thread. Owns its key, which is wiped.
// Layout: docs/formats/hrl.md, "Sealing"
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "user/base/uuid.h"
#include "user/seal/secret.h"

namespace herald::seal {

// A machine's key, unwrapped.
struct MachineKey {
    Uuid machine;
    Uuid id;
    Secret key;  // kKeyBytes

    static MachineKey create(const Uuid& machine);
    MachineKey copy() const { return {machine, id, key.copy()}; }
};

inline constexpr size_t kTagBytes = 16;
using AuthTag = std::array<std::byte, kTagBytes>;
using Nonce = std::array<std::byte, 12>;

// What a nonce is for; see the specification.
enum class SealUse : uint32_t { header = 1, block = 2, tail = 3 };

struct SealPart {
    SealUse use = SealUse::block;
    uint64_t number = 0;  // of a block; otherwise 0
};

struct FileIds {
    Uuid machine;
    Uuid disk;
    Uuid segment;
};

// A new id for a sealing: 128 bits of the kernel's generator, hashed with the clocks: a reverted
// snapshot may repeat the generator, but not at the same nanosecond of both clocks.
Uuid fresh_seal();

class FileSealer {
  public:
    // `seal` is given only for golden files, which must come out the same each time.
    FileSealer(const MachineKey& key, const FileIds& ids, std::optional<Uuid> seal = std::nullopt);
    FileSealer(FileSealer&&) noexcept;
    FileSealer& operator=(FileSealer&&) noexcept;
    ~FileSealer();

    const Uuid& key_id() const { return key_id_; }
    const Uuid& seal() const { return seal_; }
    // Encrypts `plain` to `to`, of the same size; they may be the same bytes.
    AuthTag seal_part(SealPart part, std::span<const ByteView> associated, ByteView plain,
                      ByteSpan to);

  private:
    struct State;
    Uuid key_id_;
    Uuid seal_;
    std::unique_ptr<State> state_;
};

class FileOpener {
  public:
    FileOpener(const MachineKey& key, const FileIds& ids, const Uuid& seal);
    FileOpener(FileOpener&&) noexcept;
    FileOpener& operator=(FileOpener&&) noexcept;
    ~FileOpener();

    // Decrypts to `to`, of the same size; false when anything is not what was sealed, and then
    // what is in `to` must not be looked at.
    [[nodiscard]] bool open_part(SealPart part, std::span<const ByteView> associated,
                                 ByteView sealed, const AuthTag& tag, ByteSpan to);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// For tests: hears of every part that is sealed in this process, from any thread.
class SealObserver {
  public:
    virtual ~SealObserver() = default;
    virtual void sealed(const std::array<std::byte, 32>& key_digest, const Nonce& nonce) = 0;
};
void set_seal_observer(SealObserver* observer);  // nullptr: none

}  // namespace herald::seal
