// SPDX-License-Identifier: Apache-2.0
// CbtDevice: the calls of /dev/herald-cbt by name, and the three areas of the disk that it owns.
// Promise: sizes are filled in, answers are range-checked, and every error names the call, the disk
// and the errno; nothing is retried here.
// Callers: one thread. Owns: the port.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "herald/abi/cbt.h"
#include "user/base/uuid.h"
#include "user/tracker/cbt_port.h"
#include "user/tracker/dirty_map.h"

namespace herald::tracker {

// Shared memory; the driver writes to it at any time.
struct CbtAreas {
    const herald_cbt_header_abi* header = nullptr;
    std::span<const herald_cbt_slot_abi> slots;
    ByteView payload;
};

class CbtDevice {
  public:
    explicit CbtDevice(std::unique_ptr<CbtPort> port) : port_(std::move(port)) {}
    // Without the driver: an error that says so.
    static Result<CbtDevice> open();

    Result<herald_cbt_info_abi> info();
    Result<std::vector<herald_cbt_row_abi>> list();
    // Also maps the areas, which are there from then on.
    Result<herald_cbt_own_abi> own(herald_cbt_disk_abi disk);
    const CbtAreas& areas() const { return areas_; }
    herald_cbt_disk_abi disk() const { return disk_; }

    Result<void> release(uint64_t released, uint64_t drained, uint32_t events);
    // scanned: the generation, or 0 for none.
    Result<herald_cbt_ack_abi> ack(uint64_t received, uint64_t stored, uint64_t scanned,
                                   bool gap_closed);
    Result<herald_cbt_tag_abi> tag(const Uuid& id, uint32_t flags,
                                   std::span<const herald_cbt_disk_abi> disks);
    Result<herald_cbt_hold_abi> hold(uint32_t flags, uint32_t deadline_ms,
                                     std::span<const herald_cbt_disk_abi> disks);
    // Nothing: not now.
    Result<std::optional<herald_cbt_seal_abi>> seal();
    // Runs of a bitmap, in order; calls back for each. Returns the generation they are of.
    Result<uint64_t> runs(herald_cbt_disk_abi disk, herald_cbt_bitmap which, uint64_t sectors,
                          const std::function<void(BlockRun)>& run);
    Result<void> mark(herald_cbt_disk_abi disk, uint64_t sector, uint64_t sectors);
    Result<Bytes> cookie();
    Result<void> set_cookie(ByteView cookie);
    Result<herald_cbt_stats_abi> stats(herald_cbt_disk_abi disk);
    Result<herald_cbt_cut_abi> cut(std::span<const herald_cbt_disk_abi> disks);
    Result<void> detach(herald_cbt_disk_abi disk, bool undo);
    bool wait(std::chrono::milliseconds timeout) { return port_->wait(timeout); }

  private:
    template <class T>
    Result<void> call(unsigned long request, T& argument, const char* name);

    std::unique_ptr<CbtPort> port_;
    herald_cbt_disk_abi disk_{};
    CbtAreas areas_;
};

std::string to_string(herald_cbt_disk_abi disk);
// "ordered", "extents", "map".
const char* cbt_mode_name(uint32_t mode);
// What happened, in words; of a gap also what follows from it.
const char* cbt_cause_name(uint32_t cause);

}  // namespace herald::tracker
