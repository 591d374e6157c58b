// SPDX-License-Identifier: Apache-2.0
// The store in a local directory. The order of steps in put() is what makes it durable: bytes are
// synced before they get their name, and the name (with every folder above it) before put()
// returns. Crash points: store.temp_written, store.temp_synced, store.linked, store.put.
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <set>
#include <vector>

#include "user/base/crash_point.h"
#include "user/store/object_name.h"
#include "user/store/object_store.h"

namespace herald::store {

namespace fs = std::filesystem;

namespace {

// Folders below objects/ are one per disk: more than this is not a store of ours.
constexpr size_t kFolderDepthMax = 16;

// Alignment that every file system's direct writes are content with.
constexpr size_t kPageBytes = 4096;
// Below this the page cache's copy is cheaper than waiting for the device once more.
constexpr size_t kDirectBytesMin = size_t{256} << 10;

struct Entry {
    std::string key;  // the name, with '/' behind a folder's: the order of whole object names
    bool folder = false;
};

class DirectoryStore : public ObjectStore {
  public:
    DirectoryStore(fs::path root, Fd lock)
        : root_(std::move(root)), objects_(root_ / "objects"), lock_(std::move(lock)) {}

    Result<PutOutcome> put(const std::string& name, ByteView bytes) override {
        auto checked = check_object_name(name);
        if (!checked) return pass(checked);
        const fs::path path = objects_ / name;
        auto folders = make_folders(path.parent_path());
        if (!folders) return pass(folders);
        struct stat st {};
        if (::stat(path.c_str(), &st) == 0) return existed(path);
        const fs::path temporary = root_ / "temporary" / fmt::format("{}", ++temporary_count_);
        auto written = write_temporary(temporary, bytes);
        if (!written) {
            ::unlink(temporary.c_str());
            return pass(written, fmt::format("put object {}", name));
        }
        crash_point("store.temp_synced");
        // No replacing: of two puts of one name at once, one finds that it existed.
        if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) !=
            0) {
            const int err = errno;
            ::unlink(temporary.c_str());
            if (err == EEXIST) return existed(path);
            return fail_errno(err, fmt::format("name object {}", name));
        }
        crash_point("store.linked");
        auto named = make_name_durable(path);
        if (!named) return pass(named);
        crash_point("store.put");
        return PutOutcome::created;
    }

    Result<Bytes> get(const std::string& name, uint64_t offset, uint64_t length) override {
        auto info = stat(name);
        if (!info) return pass(info);
        // Checked before it sizes anything.
        if (offset > info->bytes || length > info->bytes - offset) {
            return fail(ErrorKind::corrupt, "object {} has {} bytes; {} at byte {} were asked for",
                        name, info->bytes, length, offset);
        }
        const fs::path path = objects_ / name;
        auto fd = herald::open_file(path, O_RDONLY);
        if (!fd) return pass(fd);
        Bytes bytes;
        bytes.resize_for_overwrite(length);
        auto read = read_exact(fd->get(), offset, bytes, path.native());
        if (!read) return pass(read);
        return bytes;
    }

    Result<ObjectInfo> stat(const std::string& name) override {
        auto checked = check_object_name(name);
        if (!checked) return pass(checked);
        struct stat st {};
        if (::stat((objects_ / name).c_str(), &st) != 0) {
            return fail_errno(errno, fmt::format("object {}", name));
        }
        if (!S_ISREG(st.st_mode)) return fail_errno(ENOENT, fmt::format("object {}", name));
        return ObjectInfo{name, uint64_t(st.st_size)};
    }

    Result<void> list(const std::string& prefix,
                      const std::function<Result<void>(const ObjectInfo&)>& visit) override {
        return list_folder(objects_, "", prefix, visit, 0);
    }

    Result<void> remove(const std::string& name) override {
        auto checked = check_object_name(name);
        if (!checked) return checked;
        const fs::path path = objects_ / name;
        if (::unlink(path.c_str()) != 0) {
            if (errno == ENOENT || errno == ENOTDIR) return {};
            return fail_errno(errno, fmt::format("remove object {}", name));
        }
        return sync_dir(path.parent_path());
    }

    Result<StoreSpace> space() override { return filesystem_space(root_); }

    Result<std::optional<Fd>> open_file(const std::string& name) override {
        auto checked = check_object_name(name);
        if (!checked) return pass(checked);
        auto fd = herald::open_file(objects_ / name, O_RDONLY);
        if (!fd) return pass(fd);
        return std::optional<Fd>(std::move(*fd));
    }

  private:
    Result<void> write_temporary(const fs::path& path, ByteView bytes) {
        auto fd = herald::open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
        if (!fd) return pass(fd);
        const size_t direct = write_direct(fd->get(), bytes);
        auto done = write_exact(fd->get(), direct, bytes.subspan(direct), path.native());
        if (!done) return done;
        crash_point("store.temp_written");
        return sync_fd(fd->get(), path.native());
    }

    // Writes whole pages from the front of a large object past the page cache, where it would only
    // displace what is read again: nobody reads a segment soon, and the copy into fresh pages is
    // most of what storing it costs. Returns how many bytes: none where the file system, the
    // alignment of `bytes` or its size stand against it. Trouble is left to the ordinary write.
    static size_t write_direct(int fd, ByteView bytes) {
        const size_t whole = bytes.size() / kPageBytes * kPageBytes;
        if (whole < kDirectBytesMin || uintptr_t(bytes.data()) % kPageBytes != 0) return 0;
        const int flags = ::fcntl(fd, F_GETFL);
        if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_DIRECT) != 0) return 0;
        size_t done = 0;
        while (done < whole) {
            const ssize_t n = ::pwrite(fd, bytes.data() + done, whole - done, off_t(done));
            // What was written up to a place that is not a page's end is written once more.
            if (n <= 0) break;
            done = (done + size_t(n)) / kPageBytes * kPageBytes;
            if (size_t(n) < kPageBytes) break;
        }
        // Not to fail: only a flag that was just there is taken away.
        HERALD_ASSERT(::fcntl(fd, F_SETFL, flags) == 0);
        return done;
    }

    // Whoever named it may have died, or be about to, before its folder was synced.
    Result<PutOutcome> existed(const fs::path& path) {
        auto named = make_name_durable(path);
        if (!named) return pass(named);
        return PutOutcome::existed;
    }

    // A file system that has given up (its disk failed) may say of a folder that all of it is
    // synced: XFS does, once it has dropped what it had not written. It opens no file any more
    // then, and never comes back by itself: what opens now was synced by one that was alive.
    static Result<void> make_name_durable(const fs::path& path) {
        auto synced = sync_dir(path.parent_path());
        if (!synced) return synced;
        auto there = herald::open_file(path, O_RDONLY);
        if (!there) return pass(there);
        return {};
    }

    // Makes the folder and those above it, each durable in its parent. A folder that is merely
    // there may be another thread's whose parent is not synced yet: only known ones are skipped.
    Result<void> make_folders(const fs::path& folder) {
        const std::lock_guard hold(folders_lock_);
        return make_folder_locked(folder);
    }
    Result<void> make_folder_locked(const fs::path& folder) {
        if (folder == objects_ || durable_folders_.contains(folder)) return {};
        auto above = make_folder_locked(folder.parent_path());
        if (!above) return above;
        if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
            return fail_errno(errno, fmt::format("make folder {}", folder.native()));
        }
        auto synced = sync_dir(folder.parent_path());
        if (!synced) return synced;
        durable_folders_.insert(folder);
        return {};
    }

    Result<void> list_folder(const fs::path& folder, const std::string& base,
                             const std::string& prefix,
                             const std::function<Result<void>(const ObjectInfo&)>& visit,
                             size_t depth) {
        if (depth > kFolderDepthMax) {
            return fail(ErrorKind::operator_needed, "{} is nested too deeply for a store",
                        folder.native());
        }
        std::vector<Entry> entries;
        std::error_code error;
        for (fs::directory_iterator it(folder, error), end; !error && it != end;
             it.increment(error)) {
            const bool is_folder = it->is_directory(error);
            if (error) break;
            entries.push_back({it->path().filename().native() + (is_folder ? "/" : ""), is_folder});
        }
        if (error) {
            return fail_errno(error.value(), fmt::format("list {}", folder.native()));
        }
        std::sort(entries.begin(), entries.end(),
                  [](const Entry& a, const Entry& b) { return a.key < b.key; });
        for (const Entry& entry : entries) {
            const std::string name = base + entry.key;
            const size_t shared = std::min(name.size(), prefix.size());
            if (name.compare(0, shared, prefix, 0, shared) != 0) continue;
            Result<void> done;
            if (entry.folder) {
                done = list_folder(folder / entry.key.substr(0, entry.key.size() - 1), name, prefix,
                                   visit, depth + 1);
            } else if (name.size() >= prefix.size()) {
                auto info = stat(name);
                // Removed since it was listed, or no name of ours.
                if (!info) continue;
                done = visit(*info);
            }
            if (!done) return done;
        }
        return {};
    }

    const fs::path root_;
    const fs::path objects_;
    const Fd lock_;
    std::atomic<uint64_t> temporary_count_{0};
    std::mutex folders_lock_;  // level 1; guards durable_folders_
    std::set<fs::path> durable_folders_;
};

}  // namespace

Result<StoreSpace> filesystem_space(const fs::path& path) {
    struct statvfs vfs {};
    if (::statvfs(path.c_str(), &vfs) != 0) {
        return fail_errno(errno, fmt::format("free space of {}", path.native()));
    }
    return StoreSpace{uint64_t(vfs.f_blocks) * vfs.f_frsize, uint64_t(vfs.f_bavail) * vfs.f_frsize};
}

Result<std::unique_ptr<ObjectStore>> open_directory_store(const fs::path& root) {
    for (const char* folder : {"objects", "temporary"}) {
        auto made = make_dirs(root / folder);
        if (!made) return pass(made);
    }
    // Two processes would remove each other's temporary files.
    auto lock = open_file(root / "lock", O_RDWR | O_CREAT);
    if (!lock) return pass(lock);
    if (::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return fail_errno(errno, fmt::format("lock {}", root.native()));
        return fail(ErrorKind::operator_needed,
                    "store {} is in use by another process; stop that one first", root.native());
    }
    std::error_code error;
    for (const auto& left_over : fs::directory_iterator(root / "temporary", error)) {
        ::unlink(left_over.path().c_str());
    }
    return std::unique_ptr<ObjectStore>(std::make_unique<DirectoryStore>(root, std::move(*lock)));
}

}  // namespace herald::store
