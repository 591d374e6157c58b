// SPDX-License-Identifier: Apache-2.0
// BlockChain: where the metadata blocks of a replica log are.
// A closed log says where its last block is, and each block how far back the one before it is. A
// log that was not closed, or whose chain is broken, is searched from the front instead.
// Promise: distances are checked before they are followed; the search takes linear time and
// believes a block only where everything it says fits and nothing else fits as well.
// Callers: LogReader. Memory: 16 bytes for each block, at most HERALD_HRL_V2_BLOCKS_MAX of them.
// Failure: corrupt says why there is no chain; other kinds: the source could not be read.
// Layout: docs/formats/mshrl.md
#pragma once

#include <optional>
#include <vector>

#include "user/hrl/segment_reader.h"
#include "user/hrl/v2/log_header.h"
#include "user/hrl/v2/metadata.h"

namespace herald::hrl::v2 {

struct BlockChain {
    std::vector<uint64_t> offsets;  // of the metadata blocks, in the order of the file
    uint64_t entry_count = 0;
    uint64_t end = kHeaderBytes;  // first byte behind the last block

    // Where the data of block `i` begins.
    uint64_t data_offset(size_t i, const LogHeader& header) const {
        return i == 0 ? kHeaderBytes : offsets[i - 1] + header.metadata_bytes;
    }
};

// Of a closed log, from its end to its front. Reads the headers of the blocks only.
Result<BlockChain> follow_chain(ByteSource& source, const LogHeader& header);

struct RecoveredChain {
    BlockChain chain;
    bool ambiguous = false;  // it ends where two blocks claim the same data
};
// Of any log, from its front: every block up to the first that is not there or not proven.
Result<RecoveredChain> search_chain(ByteSource& source, const LogHeader& header);

// How a block's entries may lie, by everything that can be told without its data.
struct Placement {
    std::optional<std::vector<Entry>> oldest_first;
    std::optional<std::vector<Entry>> newest_first;
    bool either() const { return oldest_first && newest_first; }
};
// corrupt: they lie in neither order; the reason is that of `expected`.
Result<Placement> place_entries(ByteView block, uint64_t data_bytes, EntryOrder expected);

}  // namespace herald::hrl::v2
