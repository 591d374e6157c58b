// SPDX-License-Identifier: Apache-2.0
#include "user/base/file.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace herald {

void Fd::reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Result<Fd> open_file(const std::filesystem::path& path, int flags, mode_t mode) {
    Fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
    if (!fd) return fail_errno(errno, fmt::format("open {}", path.native()));
    return fd;
}

Result<void> read_exact(int fd, uint64_t offset, ByteSpan to, std::string_view path) {
    while (!to.empty()) {
        const ssize_t n = ::pread(fd, to.data(), to.size(), off_t(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(errno, fmt::format("read {} at byte {}", path, offset));
        if (n == 0) {
            return fail(ErrorKind::corrupt, "read {} at byte {}: the file ends {} bytes too soon",
                        path, offset, to.size());
        }
        to = to.subspan(size_t(n));
        offset += size_t(n);
    }
    return {};
}

Result<void> write_exact(int fd, uint64_t offset, ByteView from, std::string_view path) {
    while (!from.empty()) {
        const ssize_t n = ::pwrite(fd, from.data(), from.size(), off_t(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(errno, fmt::format("write {} at byte {}", path, offset));
        from = from.subspan(size_t(n));
        offset += size_t(n);
    }
    return {};
}

Result<void> sync_fd(int fd, std::string_view path) {
    if (::fsync(fd) != 0) return fail_errno(errno, fmt::format("fsync {}", path));
    return {};
}

Result<void> sync_dir(const std::filesystem::path& dir) {
    auto fd = open_file(dir.empty() ? "." : dir, O_RDONLY | O_DIRECTORY);
    if (!fd) return pass(fd);
    return sync_fd(fd->get(), dir.native());
}

Result<void> make_dirs(const std::filesystem::path& dir) {
    if (dir.empty()) return {};
    std::filesystem::path above;
    for (const auto& part : std::filesystem::absolute(dir)) {
        const std::filesystem::path folder = above / part;
        const bool made = ::mkdir(folder.c_str(), 0777) == 0;
        if (!made && errno != EEXIST) {
            return fail_errno(errno, fmt::format("make folder {}", folder.native()));
        }
        if (!above.empty()) {
            auto synced = sync_dir(above);
            // Where we may not even look, we made nothing earlier.
            if (!synced && (made || synced.error().sys != EACCES)) return synced;
        }
        above = folder;
    }
    return {};
}

Result<Bytes> read_file(const std::filesystem::path& path, uint64_t bytes_max) {
    auto fd = open_file(path, O_RDONLY);
    if (!fd) return pass(fd);
    auto size = size_of(fd->get(), path.native());
    if (!size) return pass(size);
    if (*size > bytes_max) {
        return fail(ErrorKind::operator_needed, "read {}: {} bytes, more than the {} allowed",
                    path.native(), *size, bytes_max);
    }
    Bytes bytes;
    bytes.resize_for_overwrite(*size);
    auto read = read_exact(fd->get(), 0, bytes, path.native());
    if (!read) return pass(read);
    return bytes;
}

Result<void> replace_file(const std::filesystem::path& path, ByteView bytes, mode_t mode) {
    std::filesystem::path temporary = path;
    temporary += ".new";
    auto fd = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode);
    if (!fd) return pass(fd);
    auto done = write_exact(fd->get(), 0, bytes, temporary.native());
    if (done) done = sync_fd(fd->get(), temporary.native());
    if (done && ::rename(temporary.c_str(), path.c_str()) != 0) {
        done = fail_errno(errno, fmt::format("rename {} to {}", temporary.native(), path.native()));
    }
    if (!done) {
        ::unlink(temporary.c_str());
        return done;
    }
    return sync_dir(path.parent_path());
}

Result<uint64_t> size_of(int fd, std::string_view path) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) return fail_errno(errno, fmt::format("stat {}", path));
    if (S_ISBLK(st.st_mode)) {
        uint64_t bytes = 0;
        if (::ioctl(fd, BLKGETSIZE64, &bytes) != 0) {
            return fail_errno(errno, fmt::format("size of {}", path));
        }
        return bytes;
    }
    return uint64_t(st.st_size);
}

}  // namespace herald
