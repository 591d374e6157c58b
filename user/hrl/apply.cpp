// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/apply.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "herald/limits.h"

namespace herald::hrl {

Result<ImageWriter> ImageWriter::begin(Fd fd, std::string name) {
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, fmt::format("stat {}", name));
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        return fail(ErrorKind::operator_needed, "{} is neither a file nor a block device", name);
    }
    ImageWriter writer;
    writer.fd_ = std::move(fd);
    writer.name_ = std::move(name);
    writer.is_regular_ = S_ISREG(st.st_mode);
    return writer;
}

Result<ImageWriter> ImageWriter::open(Fd fd, std::string name, uint64_t disk_bytes,
                                      std::optional<uint64_t> final_disk_bytes) {
    auto writer = begin(std::move(fd), std::move(name));
    if (!writer) return writer;
    if (!writer->is_regular_) {
        auto size = size_of(writer->fd_.get(), writer->name_);
        if (!size) return pass(size);
        writer->device_bytes_ = *size;
        writer->may_outgrow_ = final_disk_bytes.has_value();
        auto fits = writer->must_hold(final_disk_bytes.value_or(disk_bytes));
        if (!fits) return pass(fits);
    }
    auto sized = writer->resize(disk_bytes);
    if (!sized) return pass(sized);
    return writer;
}

Result<ImageWriter> ImageWriter::open_onto(Fd fd, std::string name, uint64_t disk_bytes) {
    auto writer = begin(std::move(fd), std::move(name));
    if (!writer) return writer;
    auto size = size_of(writer->fd_.get(), writer->name_);
    if (!size) return pass(size);
    if (!writer->is_regular_ || *size <= disk_bytes) {
        return open(std::move(writer->fd_), std::move(writer->name_), disk_bytes);
    }
    writer->outlasts_disk_ = true;
    writer->disk_bytes_ = disk_bytes;
    return writer;
}

Result<void> ImageWriter::resize(uint64_t disk_bytes) {
    if (disk_bytes > HERALD_DISK_BYTES_MAX) {
        return fail(ErrorKind::corrupt, "{}: no disk has {} bytes", name_, disk_bytes);
    }
    if (is_regular_) {
        // What lay behind the disk's end must not come into it when it grows.
        if (outlasts_disk_ && ::ftruncate(fd_.get(), off_t(disk_bytes_)) != 0) {
            return fail_errno(errno, fmt::format("resize {} to {} bytes", name_, disk_bytes_));
        }
        outlasts_disk_ = false;
        // At once, not at the end: what a shrunk disk lost must be zero if it grows again.
        if (::ftruncate(fd_.get(), off_t(disk_bytes)) != 0) {
            return fail_errno(errno, fmt::format("resize {} to {} bytes", name_, disk_bytes));
        }
    } else if (!may_outgrow_) {
        auto fits = must_hold(disk_bytes);
        if (!fits) return fits;
    }
    disk_bytes_ = disk_bytes;
    return {};
}

Result<void> ImageWriter::must_hold(uint64_t disk_bytes) const {
    if (disk_bytes <= device_bytes_) return {};
    return fail(ErrorKind::operator_needed,
                "{} has {} bytes, the disk had {}: give a target at least as large", name_,
                device_bytes_, disk_bytes);
}

Result<void> ImageWriter::begin_segment(uint64_t disk_bytes) {
    if (disk_bytes == disk_bytes_) return {};
    auto flushed = zero_now();
    if (!flushed) return flushed;
    return resize(disk_bytes);
}

Result<void> ImageWriter::apply(const Record& record) {
    auto valid = validate(record);
    if (!valid) return pass(valid, name_);
    switch (record.kind) {
        case RecordKind::write:
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
            break;
        case RecordKind::resize: {
            auto flushed = zero_now();
            if (!flushed) return flushed;
            return resize(record.length);
        }
        default:
            return {};
    }
    if (record.offset > disk_bytes_ || record.length > disk_bytes_ - record.offset) {
        return fail(ErrorKind::corrupt,
                    "{}: record {} covers bytes {} to {} of a disk that has {}: nothing after it "
                    "was applied",
                    name_, record.position, record.offset, record.offset + record.length,
                    disk_bytes_);
    }
    uint64_t length = record.length;
    if (may_outgrow_) {
        if (record.offset >= device_bytes_) return {};
        length = std::min(length, device_bytes_ - record.offset);
    }
    if (record.kind != RecordKind::write) return zero_later(record.offset, length);
    auto flushed = zero_now();
    if (!flushed) return flushed;
    auto written = write_exact(fd_.get(), record.offset, record.data.first(length), name_);
    if (written) written_bytes_ += length;
    return written;
}

Result<void> ImageWriter::zero_later(uint64_t offset, uint64_t length) {
    if (zero_bytes_ != 0 && offset == zero_offset_ + zero_bytes_) {
        zero_bytes_ += length;
        return {};
    }
    auto flushed = zero_now();
    if (!flushed) return flushed;
    zero_offset_ = offset;
    zero_bytes_ = length;
    return {};
}

Result<void> ImageWriter::zero_now() {
    if (zero_bytes_ == 0) return {};
    const uint64_t offset = zero_offset_;
    const uint64_t length = std::exchange(zero_bytes_, 0);
    zeroed_bytes_ += length;
    // A hole first (no space, no I/O), zeroed extents next, written zeroes where neither exists
    // (and where a device's sectors are larger than the range is aligned to: EINVAL).
    for (const int mode : {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE}) {
        int done;
        do {
            done = ::fallocate(fd_.get(), mode | FALLOC_FL_KEEP_SIZE, off_t(offset), off_t(length));
        } while (done != 0 && errno == EINTR);
        if (done == 0) return {};
        if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
            return fail_errno(errno, fmt::format("zero {} at byte {}", name_, offset));
        }
    }
    return write_zeroes(offset, length);
}

Result<void> ImageWriter::write_zeroes(uint64_t offset, uint64_t length) {
    const Bytes zeroes(std::min<uint64_t>(length, HERALD_RECORD_DATA_BYTES_MAX));
    while (length != 0) {
        const ByteView piece = ByteView(zeroes).first(std::min<uint64_t>(length, zeroes.size()));
        auto written = write_exact(fd_.get(), offset, piece, name_);
        if (!written) return written;
        offset += piece.size();
        length -= piece.size();
    }
    return {};
}

Result<void> ImageWriter::finish() {
    auto flushed = zero_now();
    if (!flushed) return flushed;
    if (may_outgrow_) {
        auto fits = must_hold(disk_bytes_);
        if (!fits) return fits;
    }
    return sync_fd(fd_.get(), name_);
}

}  // namespace herald::hrl
