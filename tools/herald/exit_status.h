// SPDX-License-Identifier: Apache-2.0
// The exit statuses of herald, and which one an error gets.
// Layout: docs/reference/exit_statuses.md; a script may rely on them.
#pragma once

#include "user/base/result.h"

namespace herald::cli {

enum class ExitStatus : int {
    ok = 0,
    failed = 1,         // a person must change something; the message says what
    usage = 2,          // the command line is wrong; nothing was tried
    refused = 3,        // would overwrite or does not fit: existing file, device in use, too small
    unreachable = 4,    // the server did not answer; the same command may succeed later
    corrupt = 5,        // bytes are not what was written; nothing of them was kept
    not_found = 6,      // no such disk or point; the message lists what there is
    interrupted = 130,  // Ctrl-C or SIGTERM; what was half-made is removed or named
};

// By kind; among operator_needed by errno: EEXIST, ENOTEMPTY, EBUSY, EFBIG, ENOSPC are refusals
// of a target, ENOENT is a name that is not known. EINTR of any kind is an interruption.
ExitStatus exit_status_of(const Error& error);

}  // namespace herald::cli
