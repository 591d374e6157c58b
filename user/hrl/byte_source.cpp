// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/byte_source.h"

#include "user/base/file.h"

namespace herald::hrl {

namespace {

class MemorySource : public ByteSource {
  public:
    MemorySource(ByteView bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}
    uint64_t size() const override { return bytes_.size(); }
    std::string name() const override { return name_; }
    Result<void> read(uint64_t offset, ByteSpan to) override {
        auto from = borrow(offset, to.size());
        if (!from) {
            return fail(ErrorKind::corrupt, "read {} at byte {}: it has only {} bytes", name_,
                        offset, bytes_.size());
        }
        std::copy(from->begin(), from->end(), to.begin());
        return {};
    }
    std::optional<ByteView> borrow(uint64_t offset, size_t size) override {
        if (offset > bytes_.size() || size > bytes_.size() - offset) return std::nullopt;
        return bytes_.subspan(offset, size);
    }

  private:
    ByteView bytes_;
    std::string name_;
};

class FileSource : public ByteSource {
  public:
    FileSource(Fd fd, uint64_t size, std::string name)
        : fd_(std::move(fd)), size_(size), name_(std::move(name)) {}
    uint64_t size() const override { return size_; }
    std::string name() const override { return name_; }
    Result<void> read(uint64_t offset, ByteSpan to) override {
        return read_exact(fd_.get(), offset, to, name_);
    }

  private:
    Fd fd_;
    uint64_t size_;
    std::string name_;
};

}  // namespace

std::unique_ptr<ByteSource> memory_source(ByteView bytes, std::string name) {
    return std::make_unique<MemorySource>(bytes, std::move(name));
}

Result<std::unique_ptr<ByteSource>> file_source(const std::filesystem::path& path) {
    auto fd = open_file(path, O_RDONLY);
    if (!fd) return pass(fd);
    auto size = size_of(fd->get(), path.native());
    if (!size) return pass(size);
    return std::unique_ptr<ByteSource>(
        std::make_unique<FileSource>(std::move(*fd), *size, path.native()));
}

}  // namespace herald::hrl
