// SPDX-License-Identifier: Apache-2.0
// DirtyMap: which blocks of one disk still have to reach the server, as three bitmaps over memory
// that outlives the process (pinned maps): live (set by the tracker at every write), todo (taken
// from live, not read yet) and in flight (read and emitted, not acknowledged).
// Promise: dirty_or_delivered: at every instruction, a block whose newest write is not stored is
// set in one of the three. A bit is set in the next map before it is cleared in the one before;
// an acknowledgement clears only blocks emitted at or before its position and not since.
// Callers: one reader thread; the tracker sets live bits from any CPU at any time.
// Owns: the positions of blocks in flight and how many bits are set, not the bitmaps; nobody else
// changes todo and in flight meanwhile. Large bitmaps are mapped by windows (WindowOpener), of
// which those that hold nothing are not touched. Memory: HERALD_EMITTED_BLOCK_BYTES for
// each of unacknowledged_blocks(), which the caller bounds by not taking more.
// One bit covers HERALD_BLOCK_BYTES; bit b of word w is block 64 * w + b.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "herald/limits.h"

namespace herald::tracker {

// Consecutive blocks.
struct BlockRun {
    uint64_t first = 0;
    uint64_t count = 0;
    bool operator==(const BlockRun&) const = default;
};

enum class Bitmap { live, todo, in_flight };

// Words that are made accessible together: 64 KiB, which stand for 32 GiB of disk.
inline constexpr uint64_t kWindowWords = 8192;
// Makes one window of a bitmap accessible, from word window * kWindowWords on; may take away
// another one of the same bitmap. Cannot fail.
using WindowOpener = std::function<void(Bitmap bitmap, uint64_t window)>;

class DirtyMap {
  public:
    // Three spans of (blocks + 63) / 64 words each. Nothing is cleared: call recover() first.
    // open: called before the words of a window are touched; none when all of them can be.
    DirtyMap(std::span<uint64_t> live, std::span<uint64_t> todo, std::span<uint64_t> in_flight,
             uint64_t blocks, WindowOpener open = {});
    DirtyMap(const DirtyMap&) = delete;
    DirtyMap& operator=(const DirtyMap&) = delete;

    // After a restart: everything that was in flight is to do again.
    void recover();
    // Moves live bits to todo (set there first, then cleared atomically); returns how many blocks
    // are to do now.
    uint64_t absorb_live();
    // Sets blocks to do.
    void mark(BlockRun run);
    void mark_all();
    // Moves up to blocks_max blocks, lowest first from `cursor` on and round the end, from todo to
    // in flight, as runs of at most run_blocks_max; advances the cursor. Blocks taken earlier and
    // neither emitted nor given back are left for later, so that no block is read twice at once.
    std::vector<BlockRun> take(uint64_t blocks_max, uint64_t run_blocks_max, uint64_t& cursor);
    // The run was emitted and its last record has this position; positions never go down. Blocks
    // of it that were not taken (a recover() came between) are left as they are.
    void emitted(BlockRun run, uint64_t position);
    // The run could not be read or emitted: to do again.
    void give_back(BlockRun run);
    // Everything up to this position is stored: clears what was emitted at or before it and was
    // not emitted again since.
    void acknowledge(uint64_t position);

    uint64_t blocks() const { return blocks_; }
    // Counted anew each time, because others set them: the whole bitmap is read.
    uint64_t live_blocks() const;
    uint64_t todo_blocks() const { return todo_.total; }
    uint64_t in_flight_blocks() const { return in_flight_.total; }
    // Blocks of records not acknowledged yet; one that was emitted twice counts twice.
    uint64_t unacknowledged_blocks() const { return unacknowledged_; }
    // The union of the three as runs, for `cbtctl map`; at most runs_max of them.
    std::vector<BlockRun> dirty_runs(size_t runs_max) const;

  private:
    void move_to_in_flight(BlockRun run);
    uint64_t being_read(uint64_t w) const;

    // One bitmap. Everything reaches its words by these, one access at a time.
    struct Bits {
        Bitmap which;
        std::span<uint64_t> words;
        const WindowOpener* open;
        std::vector<uint32_t> in_window;  // bits set, by window; of live: always empty
        uint64_t total = 0;

        void count();
        uint64_t load(uint64_t w) const;
        void set(uint64_t w, uint64_t bits);
        void clear(uint64_t w, uint64_t bits);
        bool empty(uint64_t window) const { return in_window[window] == 0; }
        uint64_t& word(uint64_t w) const;
    };

    WindowOpener open_;
    Bits live_;
    Bits todo_;
    Bits in_flight_;
    uint64_t blocks_;
    struct Emission {
        uint64_t position;
        BlockRun run;
    };
    std::map<uint64_t, uint64_t> emitted_;  // block -> position of its newest record,
                                            // or "being read"
    std::deque<Emission> emissions_;        // in order of position
    uint64_t unacknowledged_ = 0;           // blocks of emissions_
};

}  // namespace herald::tracker
