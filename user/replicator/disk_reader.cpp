// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/disk_reader.h"

#include <sys/mman.h>

#include <cerrno>

namespace herald::replicator {

namespace {
// Every logical block size there is, and the page.
constexpr size_t kAlignment = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
}  // namespace

Result<std::unique_ptr<DiskReader>> DiskReader::open(const std::filesystem::path& disk,
                                                     IoEngineKind kind, size_t depth,
                                                     size_t buffer_bytes, DiskWait& wait) {
    std::unique_ptr<DiskReader> reader(new DiskReader(wait));
    reader->name_ = disk.native();
    const DiskWait::Mark mark(wait);
    auto fd = open_file(disk, O_RDONLY | O_DIRECT);
    if (!fd) return pass(fd);
    reader->fd_ = std::move(*fd);
    reader->buffer_bytes_ = buffer_bytes;
    HERALD_ASSERT(buffer_bytes % kAlignment == 0);
    // In huge pages where they fill some: a direct read pins page by page and hands the device
    // one piece for each, which costs more than the read itself.
    const size_t bytes = depth * buffer_bytes;
    const size_t alignment = bytes % kHugePageBytes == 0 ? kHugePageBytes : kAlignment;
    reader->memory_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)));
    if (!reader->memory_) return fail_errno(ENOMEM, "read buffers");
    if (alignment == kHugePageBytes) (void)::madvise(reader->memory_.get(), bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < depth; ++i) {
        reader->buffers_.push_back({reader->memory_.get() + i * buffer_bytes, {}});
        reader->free_.push_back(i);
    }
    auto engine = make_io_engine(kind, reader->fd_.get(), depth);
    if (!engine) return pass(engine);
    reader->engine_ = std::move(*engine);
    return reader;
}

DiskReader::~DiskReader() {
    if (engine_) (void)drop();
    const DiskWait::Mark mark(wait_);
    engine_.reset();
    // The engine broke before all were back: the kernel may still write into the buffers.
    if (in_flight() > 0) (void)memory_.release();
    fd_ = Fd();
}

Result<void> DiskReader::submit(const Chunk& chunk) {
    HERALD_ASSERT(room() && chunk.length <= buffer_bytes_);
    const size_t slot = free_.back();
    IoRequest request;
    request.op = IoOp::read;
    request.offset = chunk.offset;
    request.buffer = {buffers_[slot].memory, size_t(chunk.length)};
    request.cookie = slot;
    // Submitting waits, too, when the device's own queue is full.
    const DiskWait::Mark mark(wait_);
    auto taken = engine_->submit({&request, 1});
    if (!taken) return pass(taken, name_);
    // The engine's depth is the number of buffers.
    HERALD_ASSERT(*taken == 1);
    free_.pop_back();
    buffers_[slot].chunk = chunk;
    bytes_in_flight_ += chunk.length;
    return {};
}

Result<void> DiskReader::wait(const std::function<Result<void>(const Done&)>& take,
                              DiskWait::Clock::time_point until) {
    if (in_flight() == 0) return {};
    IoCompletion completions[HERALD_READS_PER_DISK_MAX];
    auto count = [&] {
        const DiskWait::Mark mark(wait_);
        return engine_->wait_until(completions, 1, until);
    }();
    if (!count) return pass(count, name_);
    Result<void> result;
    for (size_t i = 0; i < *count; ++i) {
        const size_t slot = size_t(completions[i].cookie);
        Buffer& buffer = buffers_[slot];
        Done done;
        done.chunk = buffer.chunk;
        done.data = {buffer.memory, size_t(buffer.chunk.length)};
        if (completions[i].result < 0) {
            done.error = -completions[i].result;
        } else if (uint64_t(completions[i].result) != buffer.chunk.length) {
            done.error = EIO;
        } else {
            read_bytes_ += buffer.chunk.length;
        }
        bytes_in_flight_ -= buffer.chunk.length;
        // The buffer is free only after its data was used; the first error is kept, the rest of
        // the completions are still consumed.
        if (result) result = take(done);
        free_.push_back(slot);
    }
    return result;
}

Result<void> DiskReader::drop() {
    while (in_flight() > 0) {
        auto done = wait([](const Done&) -> Result<void> { return {}; });
        if (!done) return done;
    }
    return {};
}

}  // namespace herald::replicator
