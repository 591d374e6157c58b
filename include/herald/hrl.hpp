// SPDX-License-Identifier: Apache-2.0
// The C++ face of libherald-hrl: the functions of hrl.h with an owner. Header only, so that the
// library's interface stays the C one.
// Callers: one thread for each reader. Failure: status() is negative and error() says why; nothing
// throws.
#pragma once

#include <cstring>
#include <utility>

#include "herald/hrl.h"

namespace herald {

class HrlReader {
  public:
    using Options = herald_hrl_options;
    using Info = herald_hrl_info;
    using Record = herald_hrl_record;

    // Zero options of the right size.
    static Options options() {
        Options made;
        std::memset(&made, 0, sizeof made);
        made.size = sizeof made;
        return made;
    }

    explicit HrlReader(const char* path, const Options* with = nullptr) {
        status_ = herald_hrl_open(path, with, &reader_);
    }
    HrlReader(HrlReader&& other) noexcept
        : reader_(std::exchange(other.reader_, nullptr)), status_(other.status_) {}
    HrlReader& operator=(HrlReader&& other) noexcept {
        std::swap(reader_, other.reader_);
        std::swap(status_, other.status_);
        return *this;
    }
    HrlReader(const HrlReader&) = delete;
    HrlReader& operator=(const HrlReader&) = delete;
    ~HrlReader() { herald_hrl_close(reader_); }

    explicit operator bool() const { return status_ >= 0; }
    int status() const { return status_; }
    const char* error() const { return herald_hrl_error(reader_); }
    const char* loss() const { return herald_hrl_loss(reader_); }
    Info info() {
        Info info;
        std::memset(&info, 0, sizeof info);
        info.size = sizeof info;
        status_ = herald_hrl_get_info(reader_, &info);
        return info;
    }
    // False at the end and on failure; status() tells which.
    bool next(Record& record) {
        record.size = sizeof record;
        status_ = herald_hrl_next(reader_, &record);
        return status_ == HERALD_HRL_RECORD;
    }

  private:
    herald_hrl_reader* reader_ = nullptr;
    int status_ = HERALD_HRL_OK;
};

}  // namespace herald
