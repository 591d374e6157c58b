// SPDX-License-Identifier: Apache-2.0
// Interruption by Ctrl-C or SIGTERM: a flag that long work looks at between steps, so that it
// can take back what it half made. A second signal ends the program at once.
// Callers: catch_interrupts() once, from main; interrupted() from any thread.
#pragma once

#include "user/base/result.h"

namespace herald::cli {

void catch_interrupts();
bool interrupted();
// An error with sys == EINTR when interrupted, otherwise success.
Result<void> check_interrupt();

}  // namespace herald::cli
