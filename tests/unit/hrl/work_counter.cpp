// SPDX-License-Identifier: Apache-2.0
// Compiled without what it counts.
#include "tests/unit/hrl/work_counter.h"

#include <cstdlib>
#include <new>

namespace herald::hrl::test {

uint64_t work_done = 0;

}  // namespace herald::hrl::test

extern "C" void __sanitizer_cov_trace_pc();
extern "C" void __sanitizer_cov_trace_pc() { herald::hrl::test::work_done += 1; }

// What is allocated is mostly filled, by library code that is not counted.
void* operator new(size_t bytes) {
    herald::hrl::test::work_done += bytes / 16;
    void* memory = std::malloc(bytes == 0 ? 1 : bytes);
    if (!memory) throw std::bad_alloc();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
