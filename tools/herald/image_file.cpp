// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/image_file.h"

#include <openssl/evp.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "tools/herald/interrupt.h"
#include "user/base/digest.h"
#include "user/base/uuid.h"

namespace herald::cli {

namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = 1u << 20;

tl::unexpected<Error> refuse(int sys, std::string message) {
    return tl::unexpected<Error>(Error{ErrorKind::operator_needed, std::move(message), sys});
}

// The vault's refusals of a device carry no errno; here they get the one of "in use".
tl::unexpected<Error> as_refusal(Error error) {
    if (error.kind == ErrorKind::operator_needed && error.sys == 0) error.sys = EBUSY;
    return tl::unexpected<Error>(std::move(error));
}

enum class TargetKind { absent, file, block_device };

Result<TargetKind> kind_of(const fs::path& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
        if (errno != ENOENT) return fail_errno(errno, fmt::format("cannot use {}", path.native()));
        const fs::path parent = path.parent_path().empty() ? fs::path(".") : path.parent_path();
        if (::stat(parent.c_str(), &st) != 0 || !S_ISDIR(st.st_mode))
            return refuse(
                0, fmt::format("{}: there is no directory {}", path.native(), parent.native()));
        // A missing node in /dev is a device that is not there, not a file to be made in memory.
        if (fs::absolute(path).native().starts_with("/dev/") &&
            !fs::absolute(path).native().starts_with("/dev/shm/"))
            return refuse(0, fmt::format("there is no device {}", path.native()));
        return TargetKind::absent;
    }
    if (S_ISREG(st.st_mode)) return TargetKind::file;
    if (S_ISBLK(st.st_mode)) return TargetKind::block_device;
    return refuse(EEXIST, fmt::format("{} is neither a file nor a block device", path.native()));
}

}  // namespace

Result<void> ImageFile::check(const fs::path& path, bool force) {
    const auto kind = kind_of(path);
    if (!kind) return pass(kind);
    if (force || *kind == TargetKind::absent) return {};
    if (*kind == TargetKind::file)
        return refuse(
            EEXIST,
            fmt::format("{} exists; name another file, or replace it with --force", path.native()));
    // The vault knows best why: mounted, part of something, or only not forced.
    return as_refusal(vault::open_restore_target(path, 0, false).error());
}

Result<ImageFile> ImageFile::open(const fs::path& given, uint64_t bytes, bool force) {
    if (auto r = check(given, force); !r) return pass(r);
    const auto kind = kind_of(given);
    if (!kind) return pass(kind);
    ImageFile image;
    image.force_ = force;
    std::error_code ignored;
    // A link's target is replaced, not the link.
    image.path_ = *kind == TargetKind::absent ? given : fs::canonical(given, ignored);
    fs::path writes_to = image.path_;
    if (*kind != TargetKind::block_device) {
        writes_to = image.path_.parent_path() /
                    fmt::format(".{}.{}.part", image.path_.filename().native().substr(0, 200),
                                to_string(Uuid::random()).substr(0, 8));
    }
    auto target = vault::open_restore_target(writes_to, bytes, *kind == TargetKind::block_device);
    if (!target) return as_refusal(target.error());
    image.target_ = std::move(*target);
    if (*kind != TargetKind::block_device) image.temporary_ = writes_to;
    return image;
}

ImageFile::ImageFile(ImageFile&& other) noexcept
    : target_(std::move(other.target_)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      force_(other.force_) {}

ImageFile::~ImageFile() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void> ImageFile::commit() {
    if (auto r = sync_fd(fd(), path_.native()); !r) return pass(r);
    if (temporary_.empty()) return {};
    const unsigned flags = force_ ? 0 : RENAME_NOREPLACE;
    if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags) != 0) {
        const int err = errno;
        if (err == EEXIST)
            return refuse(EEXIST, fmt::format("{} appeared while the image was being written and "
                                              "is not overwritten; say --force to replace it",
                                              path_.native()));
        // Some network file systems know no RENAME_NOREPLACE; link() refuses as well.
        if (err != EINVAL || force_)
            return fail_errno(
                err, fmt::format("cannot rename {} to {}", temporary_.native(), path_.native()));
        if (::link(temporary_.c_str(), path_.c_str()) != 0)
            return fail_errno(errno, fmt::format("cannot name the image {}", path_.native()));
        ::unlink(temporary_.c_str());
    }
    temporary_.clear();
    return sync_dir(path_.parent_path().empty() ? fs::path(".") : path_.parent_path());
}

std::string ImageFile::leftover() const {
    if (!temporary_.empty()) return "nothing was left behind";
    return fmt::format("{} is INCOMPLETE: do not use it before a restore has succeeded",
                       path_.native());
}

Result<std::string> sha256_of(int fd, uint64_t bytes, std::string_view path) {
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                     EVP_MD_CTX_free);
    HERALD_ASSERT(context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1);
    Bytes buffer(kReadBytes);
    for (uint64_t at = 0; at < bytes;) {
        if (auto r = check_interrupt(); !r) return pass(r);
        const ByteSpan part(buffer.data(), size_t(std::min<uint64_t>(bytes - at, buffer.size())));
        if (auto r = read_exact(fd, at, part, path); !r) return pass(r);
        HERALD_ASSERT(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1);
        at += part.size();
    }
    std::array<std::byte, 32> hash{};
    HERALD_ASSERT(EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(hash.data()),
                                     nullptr) == 1);
    return to_hex(hash);
}

}  // namespace herald::cli
