// SPDX-License-Identifier: Apache-2.0
// The recovery rule: what a reader does, whatever state it finds a file in. A table, so that it
// can be read beside the specification and proven total.
// Promise: every combination of states has exactly one row.
// Layout: docs/formats/hrl.md, "Recovery rule"
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace herald::hrl {

enum class HeaderState : uint8_t { unreadable, damaged, newer, unsealed, locked, good };
enum class TailState : uint8_t { unreadable, whole, torn };
enum class BlockState : uint8_t { unreadable, good, damaged, none };

enum class RecoveryAction : uint8_t {
    report_trouble,  // with reading; it may be tried again
    refuse_damaged,
    refuse_newer,
    refuse_unsealed,
    refuse_locked,
    hand_out,  // the block's records
    fail,      // an error that names block and byte; nothing more
    end,       // all is there
    end_torn,  // the loss is reported
};

struct RecoveryRow {
    HeaderState header;
    std::optional<TailState> tail;    // nothing: any
    std::optional<BlockState> block;  // nothing: any
    RecoveryAction action;
};

std::span<const RecoveryRow> recovery_table();
RecoveryAction recovery_action(HeaderState header, TailState tail, BlockState block);

}  // namespace herald::hrl
