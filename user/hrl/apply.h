// SPDX-License-Identifier: Apache-2.0
// ImageWriter applies records, in stream order, onto an image file or a block device.
// Promise: after finish() the target holds what the records say, durably, and is exactly as long
// as the disk was (a regular file is cut or grown; a device is left as long as it is; so is what
// open_onto() finds behind the disk's end). Zeroes and
// discards become holes where the target can have them, written zeroes elsewhere.
// Callers: one thread. Owns the descriptor. Failure: corrupt when a record leaves the disk's
// bounds, operator_needed when the target is too small; the target's content is then undefined.
#pragma once

#include <optional>
#include <string>

#include "user/base/file.h"
#include "user/hrl/record.h"

namespace herald::hrl {

class ImageWriter {
  public:
    // `fd` is open for reading and writing; `name` is for messages; disk_bytes is the disk's size
    // before the first record. A regular file is made that long. A device must be as long as the
    // disk ever was or, where it is known, as final_disk_bytes, the size after the last record:
    // what lay behind its end in between is left out.
    static Result<ImageWriter> open(Fd fd, std::string name, uint64_t disk_bytes,
                                    std::optional<uint64_t> final_disk_bytes = {});
    // Onto a target that is somebody's: of a regular file what lies behind the disk's end stays,
    // until a resize says how long the disk is.
    static Result<ImageWriter> open_onto(Fd fd, std::string name, uint64_t disk_bytes);
    ImageWriter(ImageWriter&&) noexcept = default;
    ImageWriter& operator=(ImageWriter&&) noexcept = default;

    // The disk's size as the header of the segment that follows says: it may have been resized
    // while nobody was there to record it.
    Result<void> begin_segment(uint64_t disk_bytes);
    // Markers change nothing and are accepted; so is a reread: what it names comes again.
    Result<void> apply(const Record& record);
    Result<void> finish();

    uint64_t disk_bytes() const { return disk_bytes_; }
    uint64_t written_bytes() const { return written_bytes_; }
    uint64_t zeroed_bytes() const { return zeroed_bytes_; }

  private:
    ImageWriter() = default;
    static Result<ImageWriter> begin(Fd fd, std::string name);
    Result<void> resize(uint64_t disk_bytes);
    Result<void> must_hold(uint64_t disk_bytes) const;
    Result<void> zero_later(uint64_t offset, uint64_t length);
    Result<void> zero_now();
    Result<void> write_zeroes(uint64_t offset, uint64_t length);

    Fd fd_;
    std::string name_;
    bool is_regular_ = false;
    uint64_t device_bytes_ = 0;   // of a device
    bool may_outgrow_ = false;    // the disk is larger than the device for a while
    bool outlasts_disk_ = false;  // a regular file that is longer than the disk
    uint64_t disk_bytes_ = 0;
    // Neighbouring zero records are punched as one: a scan of an empty disk is one hole.
    uint64_t zero_offset_ = 0;
    uint64_t zero_bytes_ = 0;
    uint64_t written_bytes_ = 0;
    uint64_t zeroed_bytes_ = 0;
};

}  // namespace herald::hrl
