// SPDX-License-Identifier: Apache-2.0
// The C headers of kernel/core for tests in C++.
#ifndef HERALD_TESTS_KERNEL_CORE_CORE_HPP
#define HERALD_TESTS_KERNEL_CORE_CORE_HPP

extern "C" {
#include "kernel/core/activity.h"
#include "kernel/core/bitmap.h"
#include "kernel/core/clock.h"
#include "kernel/core/crc32c.h"
#include "kernel/core/generations.h"
#include "kernel/core/layout.h"
#include "kernel/core/mode.h"
#include "kernel/core/ring.h"
}

#endif
