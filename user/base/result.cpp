// SPDX-License-Identifier: Apache-2.0
#include "user/base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

namespace herald {

std::string errno_text(int err) { return std::generic_category().message(err); }

tl::unexpected<Error> fail_errno(int err, std::string what) {
    ErrorKind kind = ErrorKind::operator_needed;
    switch (err) {
        case EAGAIN:
        case EINTR:
        case EBUSY:
        case EIO:
        case ENOMEM:
        case ENOSPC:
        case EDQUOT:
        case ETIMEDOUT:
        case ECONNREFUSED:
        case ECONNRESET:
        case EPIPE:
            kind = ErrorKind::retry;
            break;
        default:
            break;
    }
    return tl::unexpected<Error>(Error{kind, fmt::format("{}: {}", what, errno_text(err)), err});
}

const char* to_string(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::retry:
            return "retry";
        case ErrorKind::resync:
            return "resync";
        case ErrorKind::operator_needed:
            return "operator";
        case ErrorKind::corrupt:
            return "corrupt";
    }
    return "unknown";
}

void bug(const char* condition, const char* file, int line) {
    std::fprintf(stderr, "herald: bug at %s:%d: %s does not hold; stopping\n", file, line,
                 condition);
    std::abort();
}

}  // namespace herald
