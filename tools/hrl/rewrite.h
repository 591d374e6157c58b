// SPDX-License-Identifier: Apache-2.0
// A writer that writes a segment or layer anew, with the header it has.
#pragma once

#include "user/hrl/segment_writer.h"
#include "user/seal/keyring.h"

namespace herald::hrl_tool {

// A sealed file is sealed again, under a new file key of the same machine key.
inline Result<hrl::SegmentWriter> writer_like(const hrl::SegmentHeader& header,
                                              const seal::KeySource* keys) {
    if (header.sealed_by == hrl::SealedBy::nobody) return hrl::SegmentWriter(header);
    HERALD_ASSERT(keys);  // the file was opened
    auto key = keys->find(header.machine, header.key_id);
    if (!key) return pass(key);
    return hrl::SegmentWriter(header, {header.sealed_by, *key});
}

}  // namespace herald::hrl_tool
