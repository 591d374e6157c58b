// SPDX-License-Identifier: Apache-2.0
// CbtTracker: tracks one device-mapper disk by the driver dm_cbt, which hands out its writes in the
// order of their submission.
// Promise: as Tracker's and OrderedChanges'. map() is this process's memory and only says what is
// to be read; what outlives the process is the driver's: bits, slots that were not released, and
// the cookie with the continuity. So a block leaves the driver's map only when everything that was
// read or drained of it is stored.
// Callers: one thread for each disk; one process owns a disk (a second is refused).
// Owns: the open file. Failure: after an error of restart() attach again.
// Steps: docs/internals/dm_cbt.md
#pragma once

#include <filesystem>
#include <memory>

#include "user/tracker/cbt_reader.h"

namespace herald::tracker {

struct CbtOptions {
    // A new file of the device: for the first owner and for each restart().
    std::function<Result<CbtDevice>()> open = &CbtDevice::open;
    herald_cbt_disk_abi device{};  // of the dm device
    Uuid disk;
    // A file that says in which activation the driver gave persistence up. A meta device that hangs
    // cannot say so itself, and after a crash it would be believed again. Empty: none is kept.
    std::filesystem::path note = {};
};

class CbtTracker : public Tracker, public OrderedChanges {
  public:
    static Result<std::unique_ptr<CbtTracker>> attach(CbtOptions options);

    std::string kind() const override { return "dm_cbt"; }
    OrderedChanges* ordered() override { return this; }
    std::optional<std::string> gap() const override;
    Result<void> clear_gap() override;
    DirtyMap& map() override { return *map_; }
    // Also takes over the blocks of a generation that needs a scan, sealing it if it can be.
    Result<void> drain() override;
    Result<void> end_pass() override;
    Result<bool> quiet(std::span<const Extent> extents) override;
    Continuity continuity() const override { return continuity_; }
    Result<void> set_continuity(const Continuity& continuity) override;
    Result<TrackerCounters> counters() const override;
    Result<void> restart() override;
    Result<void> mark(BlockRun run) override;

    Result<std::optional<OrderedChange>> next() override { return reader_->next(); }
    void emitted(uint64_t position) override { reader_->emitted(position); }
    Result<void> release() override;
    void all_read(uint64_t position) override;
    Result<void> acknowledged(uint64_t received, uint64_t stored) override;
    Result<bool> scan_must_wait() override;
    bool scan_was_exact() const override { return exact_; }
    bool scan_was_passed() const override { return reader_->drained() >= passed_at_; }
    uint64_t complete_ns() const override;
    uint64_t disk_bytes() const override {
        return __atomic_load_n(&header().sectors, __ATOMIC_RELAXED) * HERALD_CBT_SECTOR_BYTES;
    }
    Result<TagAnswer> tag(const Uuid& id) override;

    CbtDevice& device() { return *device_; }
    const herald_cbt_header_abi& header() const { return *device_->areas().header; }

  private:
    explicit CbtTracker(CbtOptions options) : options_(std::move(options)) {}
    Result<void> take_disk();
    Result<herald_cbt_ack_abi> ask();
    Result<bool> generation_waits();
    Result<void> read_note();
    Result<void> note_given_up();

    CbtOptions options_;
    std::optional<CbtDevice> device_;
    std::optional<CbtReader> reader_;
    uint64_t sectors_ = 0;
    std::vector<uint64_t> live_, todo_, in_flight_;
    std::optional<DirtyMap> map_;
    Continuity continuity_;
    bool lost_ = false;   // persistence was, in an activation before this one
    bool noted_ = false;  // that it was given up in this one

    // Slots, as the driver was told.
    uint64_t released_ = 0;
    uint64_t told_drained_ = 0;
    uint64_t received_ = 0;
    uint64_t stored_ = 0;

    uint64_t loaded_ = 0;                // the sealed generation whose blocks are to do in map()
    std::optional<uint64_t> loaded_at_;  // all of them are in the stream up to here
    bool scanned_ = false;               // and stored: the driver was told
    bool exact_ = false;
    uint64_t passed_at_ = 0;
    uint64_t cut_ns_ = 0;  // every slot with a smaller time is before cut_slot_
    uint64_t cut_slot_ = 0;
};

}  // namespace herald::tracker
