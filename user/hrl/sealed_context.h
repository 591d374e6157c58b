// SPDX-License-Identifier: Apache-2.0
// What the tag of a sealed block covers besides its data: whose it is, where it belongs, and all
// that stays plain. Writer and reader share it.
// Layout: docs/formats/hrl.md, "Sealing"
#pragma once

#include "user/base/uuid.h"
#include "user/hrl/layout.h"

namespace herald::hrl {

class SealedContext {
  public:
    // Borrows the views: headers as they lie in the file.
    SealedContext(const Uuid& machine, const Uuid& disk, ByteView block_header,
                  ByteView seal_header, ByteView plain)
        : machine_(machine),
          disk_(disk),
          // Not magic and index (the seal header has the index of the sealing), nor the chain.
          parts_{label_,      machine_.bytes, disk_.bytes, block_header.subspan(8, 24),
                 seal_header, plain} {}
    SealedContext(const SealedContext&) = delete;
    SealedContext& operator=(const SealedContext&) = delete;

    std::span<const ByteView> parts() const { return parts_; }

  private:
    const std::array<std::byte, 8> label_ = {std::byte{'H'}, std::byte{'B'}, std::byte{'L'},
                                             std::byte{'K'}, std::byte{kVersion}};
    Uuid machine_;
    Uuid disk_;
    std::array<ByteView, 6> parts_;
};

}  // namespace herald::hrl
