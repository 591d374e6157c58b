// SPDX-License-Identifier: Apache-2.0
// Result<T> is a value or an Error; every function of ours that can fail returns one.
// Promise: an Error says what failed, on which object, and (by its kind) what to do about it.
// Callers: any thread. No exception crosses a module.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace herald {

// What the caller should do: that, not where it happened, is what an error's kind answers.
enum class ErrorKind {
    retry,            // passing trouble: the same call may succeed later
    resync,           // the two sides disagree: start a new session, compare digests if told to
    operator_needed,  // a person must change something: configuration, space, permission, input
    corrupt,          // bytes are not what was written; nothing after them was believed
};

struct Error {
    ErrorKind kind = ErrorKind::operator_needed;
    std::string message;
    int sys = 0;  // errno where a system call was the cause, otherwise 0
};

template <class T = void>
class [[nodiscard]] Result : public tl::expected<T, Error> {
  public:
    using tl::expected<T, Error>::expected;
};

// The text of an errno value, for messages.
std::string errno_text(int err);

template <class... Args>
tl::unexpected<Error> fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
    return tl::unexpected<Error>(Error{kind, fmt::format(format, std::forward<Args>(args)...), 0});
}

// For a failed system call: the message ends in the errno's text, the kind follows from it
// (EAGAIN, EINTR, ENOSPC, EIO ... are retry; the rest need an operator).
tl::unexpected<Error> fail_errno(int err, std::string what);

// The error of `from`, for returning it as another Result.
template <class R>
tl::unexpected<Error> pass(R&& from) {
    return tl::unexpected<Error>(std::forward<R>(from).error());
}

// As pass(), with what the caller was doing put in front.
template <class R>
tl::unexpected<Error> pass(R&& from, std::string_view doing) {
    Error error = std::forward<R>(from).error();
    error.message = fmt::format("{}: {}", doing, error.message);
    return tl::unexpected<Error>(std::move(error));
}

const char* to_string(ErrorKind kind);

// A broken invariant of our own: prints it and aborts, in release builds too.
[[noreturn]] void bug(const char* condition, const char* file, int line);
#define HERALD_ASSERT(condition) \
    (static_cast<bool>(condition) ? void(0) : ::herald::bug(#condition, __FILE__, __LINE__))

}  // namespace herald
