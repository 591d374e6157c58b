// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/numbered_files.h"

#include <charconv>

namespace herald::hrl_tool {

std::filesystem::path NumberedFiles::numbered(uint64_t number) const {
    if (number == 1) return first_;
    std::filesystem::path name = first_.stem();
    name += fmt::format(".{}", number);
    name += first_.extension();
    return first_.parent_path() / name;
}

// One file would do with its own name; where there are two, a third that is there already would
// pass for theirs.
Result<void> NumberedFiles::find_taken() const {
    const std::filesystem::path folder = first_.has_parent_path() ? first_.parent_path() : ".";
    const std::string before = first_.stem().native() + ".";
    const std::string behind = first_.extension().native();
    std::error_code error;
    for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
         it.increment(error)) {
        const std::string name = it->path().filename().native();
        if (name.size() <= before.size() + behind.size() || !name.starts_with(before) ||
            !name.ends_with(behind)) {
            continue;
        }
        const char* const digits = name.data() + before.size();
        const char* const digits_end = name.data() + name.size() - behind.size();
        uint64_t number = 0;
        const auto parsed = std::from_chars(digits, digits_end, number);
        if (parsed.ec != std::errc() || parsed.ptr != digits_end || number < 2 || *digits == '0') {
            continue;
        }
        return fail(ErrorKind::operator_needed,
                    "{} exists, and {} does not hold all: give another name",
                    numbered(number).native(), first_.native());
    }
    if (error) return fail_errno(error.value(), fmt::format("list {}", folder.native()));
    return {};
}

Result<hrl::ByteSink*> NumberedFiles::begin() {
    if (count_ == 1) {
        auto found = find_taken();
        if (!found) return pass(found);
    }
    auto committed = commit();
    if (!committed) return pass(committed);
    auto created = NewFile::create(numbered(count_ + 1));
    if (!created) return pass(created);
    count_ += 1;
    file_.emplace(std::move(*created));
    return &file_->sink();
}

Result<void> NumberedFiles::end() { return file_->sink().sync(); }

Result<void> NumberedFiles::commit() {
    if (!file_) return {};
    auto committed = file_->commit();
    file_.reset();
    return committed;
}

}  // namespace herald::hrl_tool
