// SPDX-License-Identifier: Apache-2.0
// Counts work the same way on every machine: basic blocks run in code that was compiled with
// -fsanitize-coverage=trace-pc (user/hrl and the test, header templates included), bytes
// allocated, and bytes that a reader asked its source for.
// Callers: one thread.
#pragma once

#include <cstdint>

namespace herald::hrl::test {

extern uint64_t work_done;

}  // namespace herald::hrl::test
