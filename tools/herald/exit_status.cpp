// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/exit_status.h"

#include <cerrno>

namespace herald::cli {

ExitStatus exit_status_of(const Error& error) {
    if (error.sys == EINTR) return ExitStatus::interrupted;
    switch (error.sys) {
        case EEXIST:
        case ENOTEMPTY:
        case EBUSY:
        case EFBIG:
        case ENOSPC:
            return ExitStatus::refused;
        default:
            break;
    }
    switch (error.kind) {
        case ErrorKind::retry:
            return ExitStatus::unreachable;
        case ErrorKind::corrupt:
            return ExitStatus::corrupt;
        case ErrorKind::resync:
        case ErrorKind::operator_needed:
            break;
    }
    return error.sys == ENOENT ? ExitStatus::not_found : ExitStatus::failed;
}

}  // namespace herald::cli
