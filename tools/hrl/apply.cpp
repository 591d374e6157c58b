// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/apply.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tools/hrl/progress.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/segment_reader.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

struct Input {
    std::filesystem::path file;
    SegmentHeader header;
    uint64_t last_position = 0;
    uint64_t file_bytes = 0;
};

Result<Input> open_input(const std::filesystem::path& file) {
    auto source = file_source(file);
    if (!source) return pass(source);
    Input input{file, {}, 0, (*source)->size()};
    auto reader = SegmentReader::open(std::move(*source));
    if (!reader) return pass(reader);
    if (!reader->whole()) return fail(ErrorKind::corrupt, "{}", reader->loss());
    input.header = reader->header();
    input.last_position = *reader->last_position();
    return input;
}

// In stream order; one disk, no gap, no overlap, each the successor it says it is.
Result<std::vector<Input>> arrange(const ApplyOptions& options) {
    std::vector<Input> inputs;
    for (const auto& file : options.files) {
        auto input = open_input(file);
        if (!input) return pass(input);
        inputs.push_back(std::move(*input));
    }
    std::ranges::sort(inputs, {}, [](const Input& input) { return input.header.first_position; });
    for (size_t i = 1; i < inputs.size(); ++i) {
        const Input& before = inputs[i - 1];
        const Input& input = inputs[i];
        if (input.header.machine != before.header.machine ||
            input.header.disk != before.header.disk) {
            return fail(ErrorKind::operator_needed, "{} and {} are of different disks: {} and {}",
                        before.file.native(), input.file.native(), to_string(before.header.disk),
                        to_string(input.header.disk));
        }
        if (input.header.first_position != before.last_position + 1) {
            return fail(ErrorKind::operator_needed,
                        "{} ends at position {} and {} begins at {}: give every segment between "
                        "them, each once",
                        before.file.native(), before.last_position, input.file.native(),
                        input.header.first_position);
        }
        if (!input.header.previous_segment.is_nil() &&
            input.header.previous_segment != before.header.segment) {
            return fail(ErrorKind::operator_needed, "{} follows segment {}, but {} is segment {}",
                        input.file.native(), to_string(input.header.previous_segment),
                        before.file.native(), to_string(before.header.segment));
        }
    }
    const uint64_t first = inputs.front().header.first_position;
    const uint64_t last = inputs.back().last_position;
    if (options.until && (*options.until < first || *options.until > last)) {
        return fail(ErrorKind::operator_needed,
                    "--until {}: these segments hold the positions {} to {}", *options.until, first,
                    last);
    }
    if (options.until) {
        std::erase_if(inputs, [&](const Input& input) {
            return input.header.first_position > *options.until;
        });
    }
    return inputs;
}

Result<void> verify_all(const std::vector<Input>& inputs, uint64_t total_bytes) {
    Progress progress("verifying", total_bytes);
    uint64_t done = 0;
    for (const Input& input : inputs) {
        auto source = file_source(input.file);
        if (!source) return pass(source);
        auto summary = verify_segment(std::move(*source));
        if (!summary) return pass(summary);
        // A file exchanged since it was arranged would undo the checks of the arrangement.
        if (summary->header != input.header || summary->last_position != input.last_position) {
            return fail(ErrorKind::operator_needed, "{} changed while it was read",
                        input.file.native());
        }
        done += input.file_bytes;
        progress.at(done);
    }
    return {};
}

// A new image is written under another name, so that the final one never holds half of it.
struct Target {
    Fd fd;
    std::filesystem::path written;  // where the bytes go
    bool is_new = false;
};

Result<Target> open_target(const ApplyOptions& options, const Input& first) {
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
    if (!exists && first.header.first_position != 1 && !options.force) {
        return fail(ErrorKind::operator_needed,
                    "{} begins at position {}: a new image needs the stream from position 1 on; "
                    "--force begins with zeroes instead",
                    first.file.native(), first.header.first_position);
    }
    Target target;
    target.is_new = !exists;
    target.written = options.target;
    int flags = O_RDWR;
    if (target.is_new) {
        target.written += ".part";
        flags |= O_CREAT | O_TRUNC;
    } else if (S_ISBLK(st.st_mode)) {
        flags |= O_EXCL;  // a mounted or otherwise used device says EBUSY
    }
    auto fd = open_file(target.written, flags);
    if (!fd) return pass(fd);
    target.fd = std::move(*fd);
    return target;
}

Result<void> apply_all(const std::vector<Input>& inputs, const ApplyOptions& options,
                       ImageWriter& image, uint64_t total_bytes) {
    Progress progress("applying", total_bytes);
    uint64_t done = 0;
    for (const Input& input : inputs) {
        auto source = file_source(input.file);
        if (!source) return pass(source);
        uint64_t raw_bytes = 0;
        auto reader = SegmentReader::open(std::move(*source));
        if (!reader) return pass(reader);
        if (!reader->whole()) return fail(ErrorKind::corrupt, "{}", reader->loss());
        auto begun = image.begin_segment(reader->header().disk_bytes);
        if (!begun) return begun;
        for (;;) {
            auto record = reader->next();
            if (!record) return pass(record);
            if (!*record || (options.until && (*record)->position > *options.until)) break;
            auto applied = image.apply(**record);
            if (!applied) return applied;
            raw_bytes += (*record)->data.size();
            progress.at(done + std::min(raw_bytes, input.file_bytes));
        }
        done += input.file_bytes;
    }
    return {};
}

Result<void> make_image(const std::vector<Input>& inputs, const ApplyOptions& options,
                        uint64_t total_bytes) {
    auto target = open_target(options, inputs.front());
    if (!target) return pass(target);
    const bool is_new = target->is_new;
    const auto written = target->written;
    const auto make = [&]() -> Result<void> {
        auto image = ImageWriter::open(std::move(target->fd), written.native(),
                                       inputs.front().header.disk_bytes);
        if (!image) return pass(image);
        auto done = apply_all(inputs, options, *image, total_bytes);
        if (done) done = image->finish();
        if (!done) return done;
        fmt::print("{}: {} in {} segments, {} written, {} zero\n", options.target.native(),
                   bytes_text(image->disk_bytes()), inputs.size(),
                   bytes_text(image->written_bytes()), bytes_text(image->zeroed_bytes()));
        return {};
    };
    auto made = make();
    if (!is_new) return made;
    if (made && ::rename(written.c_str(), options.target.c_str()) != 0) {
        made = fail_errno(
            errno, fmt::format("rename {} to {}", written.native(), options.target.native()));
    }
    if (!made) {
        ::unlink(written.c_str());
        return made;
    }
    return sync_dir(options.target.parent_path());
}

}  // namespace

int apply(const ApplyOptions& options) {
    auto inputs = arrange(options);
    if (!inputs) return report(inputs.error());
    uint64_t total_bytes = 0;
    for (const Input& input : *inputs) total_bytes += input.file_bytes;
    auto verified = verify_all(*inputs, total_bytes);
    if (!verified) return report(verified.error());
    auto made = make_image(*inputs, options, total_bytes);
    if (!made) return report(made.error());
    return kDone;
}

}  // namespace herald::hrl_tool
