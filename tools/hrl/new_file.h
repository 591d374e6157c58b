// SPDX-License-Identifier: Apache-2.0
// NewFile: a file that gets its name only when it is complete and durable.
// Promise: an existing target is refused, also one that appears meanwhile; without commit()
// nothing is left, also when a signal ends the program.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>

#include "tools/hrl/unfinished.h"
#include "user/base/file.h"
#include "user/hrl/byte_sink.h"

namespace herald::hrl_tool {

class NewFile {
  public:
    static Result<NewFile> create(const std::filesystem::path& path, mode_t mode = 0644) {
        std::error_code ignored;
        if (std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) {
            return fail(ErrorKind::operator_needed, "{} exists: give another name", path.native());
        }
        NewFile file;
        file.path_ = path;
        file.part_ = path;
        file.part_ += ".part";
        auto sink = Unfinished::make(file.part_, file.unfinished_,
                                     [&] { return hrl::file_sink(file.part_, mode); });
        if (!sink) return pass(sink);
        file.sink_ = std::move(*sink);
        return file;
    }
    NewFile(NewFile&&) noexcept = default;
    NewFile& operator=(NewFile&&) noexcept = delete;
    ~NewFile() = default;

    hrl::ByteSink& sink() { return *sink_; }

    Result<void> commit() {
        auto synced = sink_->sync();
        if (!synced) return synced;
        // A link, unlike a rename, does not replace what is there.
        if (::link(part_.c_str(), path_.c_str()) != 0) {
            return fail_errno(errno, fmt::format("name {} {}", part_.native(), path_.native()));
        }
        ::unlink(part_.c_str());
        unfinished_->keep();
        sink_.reset();
        return sync_dir(path_.parent_path());
    }

  private:
    NewFile() = default;
    std::filesystem::path path_;
    std::filesystem::path part_;
    std::unique_ptr<Unfinished> unfinished_;
    std::unique_ptr<hrl::ByteSink> sink_;  // null once committed or moved from
};

}  // namespace herald::hrl_tool
