// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/byte_sink.h"

#include <algorithm>

#include "user/base/file.h"

namespace herald::hrl {

namespace {

class MemorySink : public ByteSink {
  public:
    explicit MemorySink(Bytes& to) : to_(to) {}
    Result<void> append(ByteView bytes) override {
        to_.insert(to_.end(), bytes.begin(), bytes.end());
        return {};
    }
    Result<void> replace(uint64_t offset, ByteView bytes) override {
        HERALD_ASSERT(offset <= to_.size() && bytes.size() <= to_.size() - offset);
        std::copy(bytes.begin(), bytes.end(), to_.begin() + ptrdiff_t(offset));
        return {};
    }
    Result<void> sync() override { return {}; }
    uint64_t size() const override { return to_.size(); }

  private:
    Bytes& to_;
};

class FileSink : public ByteSink {
  public:
    FileSink(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    Result<void> append(ByteView bytes) override {
        auto written = write_exact(fd_.get(), size_, bytes, name_);
        if (written) size_ += bytes.size();
        return written;
    }
    Result<void> replace(uint64_t offset, ByteView bytes) override {
        return write_exact(fd_.get(), offset, bytes, name_);
    }
    Result<void> sync() override { return sync_fd(fd_.get(), name_); }
    uint64_t size() const override { return size_; }

  private:
    Fd fd_;
    std::string name_;
    uint64_t size_ = 0;
};

}  // namespace

std::unique_ptr<ByteSink> memory_sink(Bytes& to) { return std::make_unique<MemorySink>(to); }

Result<std::unique_ptr<ByteSink>> file_sink(const std::filesystem::path& path, mode_t mode) {
    auto fd = open_file(path, O_RDWR | O_CREAT | O_EXCL, mode);
    if (!fd) return pass(fd);
    return std::unique_ptr<ByteSink>(std::make_unique<FileSink>(std::move(*fd), path.native()));
}

}  // namespace herald::hrl
