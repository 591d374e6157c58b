// SPDX-License-Identifier: Apache-2.0
// The part of root keys that touches files.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "user/base/file.h"
#include "user/seal/key_text.h"
#include "user/seal/root_key.h"

namespace herald::seal {

namespace {

constexpr size_t kTypedBytesMax = 1024;

struct PrivateFile {
    Secret text;
    std::string problem;  // why it is not private; empty when it is
};

Result<PrivateFile> read_private(const std::filesystem::path& path, size_t bytes_max) {
    auto fd = open_file(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    if (!fd) return pass(fd);
    struct stat st {};
    if (::fstat(fd->get(), &st) != 0)
        return fail_errno(errno, fmt::format("stat {}", path.native()));
    if (!S_ISREG(st.st_mode)) {
        return fail(ErrorKind::operator_needed, "{}: it is not a regular file", path.native());
    }
    if (st.st_size <= 0 || uint64_t(st.st_size) > bytes_max) {
        return fail(ErrorKind::corrupt, "{}: {} bytes are not the size of a key file",
                    path.native(), st.st_size);
    }
    PrivateFile file;
    if ((st.st_mode & 0177) != 0) {
        file.problem = fmt::format("its mode is {:04o}: others may use it; chmod 600",
                                   unsigned(st.st_mode & 07777));
    } else if (st.st_uid != ::geteuid()) {
        file.problem = fmt::format("it belongs to user {}, who could change it", st.st_uid);
    }
    file.text = Secret(size_t(st.st_size));
    auto read = read_exact(fd->get(), 0, file.text.span(), path.native());
    if (!read) return pass(read);
    return file;
}

}  // namespace

Result<std::unique_ptr<RootKey>> open_root_key(const std::filesystem::path& path,
                                               const AskSecret& ask) {
    auto file = read_private(path, kKeyFileBytesMax);
    if (!file) return pass(file);
    auto root = parse_root_key(file->text.view(), path.native());
    if (!root) return pass(root);
    if (root->source == RootSource::file && !file->problem.empty()) {
        return fail(ErrorKind::operator_needed, "{}: {}", path.native(), file->problem);
    }
    return open_root_key(*root, path.native(), ask);
}

Result<Secret> read_secret_file(const std::filesystem::path& path) {
    auto file = read_private(path, kTypedBytesMax + 1);
    if (!file) return pass(file);
    if (!file->problem.empty()) {
        return fail(ErrorKind::operator_needed, "{}: {}", path.native(), file->problem);
    }
    const ByteView text = file->text.view();
    const auto end = std::find(text.begin(), text.end(), std::byte{'\n'});
    const ByteView line = text.first(size_t(end - text.begin()));
    if (line.empty() || line.size() > kTypedBytesMax) {
        return fail(ErrorKind::operator_needed, "{}: its first line is empty or too long",
                    path.native());
    }
    return Secret(line);
}

}  // namespace herald::seal
