// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/apply.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "tools/hrl/disk_bounds.h"
#include "tools/hrl/inputs.h"
#include "tools/hrl/text.h"
#include "tools/hrl/unfinished.h"
#include "tools/hrl/verbs.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

Result<void> cut_inputs(std::vector<Input>& inputs, std::optional<uint64_t> until) {
    if (!until) return {};
    const uint64_t first = inputs.front().first();
    const uint64_t last = inputs.back().last();
    if (*until < first || *until > last) {
        return fail(ErrorKind::operator_needed,
                    "--until {}: these files hold the positions {} to {}", *until, first, last);
    }
    std::erase_if(inputs, [&](const Input& input) { return input.first() > *until; });
    const Input& end = inputs.back();
    if (end.is_layer() && *until < end.last()) {
        return fail(ErrorKind::operator_needed,
                    "--until {}: {} is a layer: it holds what is kept of the positions {} to {}, "
                    "which makes the disk at position {} only",
                    *until, end.file.native(), end.first(), end.last(), end.last());
    }
    return {};
}

// A new image is written under another name, so that the final one never holds half of it.
struct Target {
    Fd fd;
    std::filesystem::path written;           // where the bytes go
    std::unique_ptr<Unfinished> unfinished;  // of a new one
    bool is_new = false;
    bool is_device = false;
    uint64_t bytes = 0;  // what it holds, before anything is applied
};

// The file whose bytes a loop device shows; none for other devices.
std::filesystem::path backing_file(const struct stat& st) {
    if (!S_ISBLK(st.st_mode)) return {};
    std::ifstream in(fmt::format("/sys/dev/block/{}:{}/loop/backing_file", major(st.st_rdev),
                                 minor(st.st_rdev)));
    std::string name;
    std::getline(in, name);
    return name;
}

bool same_file(const struct stat& a, const struct stat& b) {
    if (S_ISBLK(a.st_mode) && S_ISBLK(b.st_mode)) return a.st_rdev == b.st_rdev;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// By whatever name: a link, another path, another node of the same device, a loop device.
Result<void> must_be_no_input(const Target& target, const std::vector<Input>& inputs,
                              const std::filesystem::path& name) {
    struct stat st {};
    if (::fstat(target.fd.get(), &st) != 0) {
        return fail_errno(errno, fmt::format("stat {}", name.native()));
    }
    struct stat behind {};
    const auto backing = backing_file(st);
    const bool is_loop = !backing.empty() && ::stat(backing.c_str(), &behind) == 0;
    for (const Input& input : inputs) {
        struct stat other {};
        if (::stat(input.file.c_str(), &other) != 0) {
            return fail_errno(errno, fmt::format("stat {}", input.file.native()));
        }
        if (!same_file(st, other) && !(is_loop && same_file(behind, other))) continue;
        return fail(ErrorKind::operator_needed,
                    "{} is one of the journals ({}): give the image that they are to change",
                    name.native(), input.file.native());
    }
    return {};
}

Result<Target> open_target(const ApplyOptions& options, const std::vector<Input>& inputs) {
    const Input& first = inputs.front();
    struct stat st {};
    const bool exists = ::stat(options.target.c_str(), &st) == 0;
    if (!exists && errno != ENOENT) {
        return fail_errno(errno, fmt::format("stat {}", options.target.native()));
    }
    if (exists && !options.force) {
        return fail(ErrorKind::operator_needed,
                    "{} exists: give another name, or --force to apply onto what it holds",
                    options.target.native());
    }
    if (!exists && !options.force && first.facts.format == JournalFormat::v2) {
        return fail(ErrorKind::operator_needed,
                    "{} holds what was written to a disk since a copy of it was made: give that "
                    "copy as the target, with --force; or --force to begin with zeroes instead",
                    first.file.native());
    }
    if (!exists && !options.force && first.first() != 1 && !first.is_image()) {
        return fail(ErrorKind::operator_needed,
                    "{} begins at position {}: a new image needs the stream from position 1 on; "
                    "--force begins with zeroes instead",
                    first.file.native(), first.first());
    }
    Target target;
    target.is_new = !exists;
    target.written = options.target;
    int flags = O_RDWR;
    if (target.is_new) {
        target.written += ".part";
        flags |= O_CREAT | O_EXCL;
    } else if (S_ISBLK(st.st_mode)) {
        flags |= O_EXCL;  // a mounted or otherwise used device says EBUSY
    }
    const auto open = [&] { return open_file(target.written, flags); };
    auto fd = target.is_new ? Unfinished::make(target.written, target.unfinished, open) : open();
    if (!fd) return pass(fd);
    target.fd = std::move(*fd);
    if (target.is_new) return target;
    auto other = must_be_no_input(target, inputs, options.target);
    if (!other) return pass(other);
    auto bytes = size_of(target.fd.get(), options.target.native());
    if (!bytes) return pass(bytes);
    target.bytes = *bytes;
    target.is_device = S_ISBLK(st.st_mode);
    return target;
}

// Whatever would fail on the way is found before anything of the target is changed.
Result<void> must_fit(const Target& target, const std::vector<Input>& inputs,
                      const DiskBounds& bounds, const std::filesystem::path& name) {
    if (target.is_new) return {};
    const bool is_log = inputs.front().facts.format == JournalFormat::v2;
    const uint64_t needed = is_log ? bounds.end() : bounds.disk_bytes_max();
    // A file grows with the disk, where the journals say how large that is.
    if ((!is_log && !target.is_device) || needed <= target.bytes) return {};
    return fail(ErrorKind::operator_needed,
                "{} has {} bytes, the disk had {}: give a target at least as large", name.native(),
                target.bytes, needed);
}

// v3 says how large the disk is. v2 does not: an existing target keeps its size, a new one ends
// with the last range.
Result<uint64_t> first_disk_bytes(const std::vector<Input>& inputs, const Target& target) {
    if (inputs.front().facts.disk_bytes) return *inputs.front().facts.disk_bytes;
    if (!target.is_new) return target.bytes;
    uint64_t end = 0;
    for (const Input& input : inputs) end = std::max(end, input.disk_end);
    return end;
}

const char* what_they_are(const std::vector<Input>& inputs) {
    if (inputs.front().facts.format == JournalFormat::v2) return "logs";
    return std::ranges::any_of(inputs, &Input::is_layer) ? "segments and layers" : "segments";
}

Result<void> make_image(const std::vector<Input>& inputs, const ApplyOptions& options,
                        const DiskBounds& bounds) {
    auto target = open_target(options, inputs);
    if (!target) return pass(target);
    auto fits = must_fit(*target, inputs, bounds, options.target);
    if (!fits) return fits;
    const bool is_new = target->is_new;
    const auto written = target->written;
    const auto make = [&]() -> Result<void> {
        auto disk_bytes = first_disk_bytes(inputs, *target);
        if (!disk_bytes) return pass(disk_bytes);
        if (!is_new && !target->is_device && target->bytes > *disk_bytes) {
            print_err(
                "hrl: {} has {} bytes, the disk {}: what lies behind the disk's end is kept\n",
                options.target.native(), target->bytes, *disk_bytes);
        }
        auto image =
            is_new ? ImageWriter::open(std::move(target->fd), written.native(), *disk_bytes)
                   : ImageWriter::open_onto(std::move(target->fd), written.native(), *disk_bytes);
        if (!image) return pass(image);
        const auto begin = [&](const Input& input) -> Result<void> {
            if (!input.facts.disk_bytes) return {};
            auto begun = image->begin_segment(*input.facts.disk_bytes);
            if (!begun || is_new || !input.is_image() || *input.facts.disk_bytes == 0) return begun;
            // What the layer does not cover is zero, whatever the target holds.
            Record rest;
            rest.kind = RecordKind::zeroes;
            rest.position = input.first();
            rest.length = *input.facts.disk_bytes;
            return image->apply(rest);
        };
        const auto visit = [&](const Record& record) -> Result<bool> {
            if (options.until && record.position > *options.until) return false;
            auto applied = image->apply(record);
            if (!applied) return pass(applied);
            return true;
        };
        auto done = read_inputs(inputs, options.journal, options.target.parent_path(), "applying",
                                begin, visit);
        if (done) done = image->finish();
        if (!done) return done;
        print_out("{}: {} in {} {}, {} written, {} zero\n", options.target.native(),
                  bytes_text(image->disk_bytes()), inputs.size(), what_they_are(inputs),
                  bytes_text(image->written_bytes()), bytes_text(image->zeroed_bytes()));
        return {};
    };
    auto made = make();
    if (!is_new) return made;
    if (made && ::rename(written.c_str(), options.target.c_str()) != 0) {
        made = fail_errno(
            errno, fmt::format("rename {} to {}", written.native(), options.target.native()));
    }
    if (!made) return made;
    target->unfinished->keep();
    return sync_dir(options.target.parent_path());
}

}  // namespace

int apply(const ApplyOptions& options) {
    auto inputs = arrange(options.files, options.journal);
    if (!inputs) return report(inputs.error());
    DiskBounds bounds(options.until);
    const auto begin = [&](const Input& input, const Journal& journal) {
        bounds.begin(journal, input.first());
    };
    const auto look_at = [&](const Record& record) { return bounds.add(record); };
    auto verified = verify_inputs(*inputs, options.journal, look_at, begin);
    if (!verified) return report(verified.error());
    auto cut = cut_inputs(*inputs, options.until);
    if (!cut) return report(cut.error());
    if (bounds.outside() != 0) {
        return report(
            {ErrorKind::corrupt,
             fmt::format("{}: {}: nothing was applied", bounds.problem_file(), bounds.problem()),
             0});
    }
    auto made = make_image(*inputs, options, bounds);
    if (!made) return report(made.error());
    return kDone;
}

}  // namespace herald::hrl_tool
