// SPDX-License-Identifier: Apache-2.0
// What a program prints: standard output may be a full disk, and then nothing was told.
// Promise: print_out() and print_err() never throw and never end the program; what standard output
// did not take makes end_output() say so and give another exit status.
// Callers: one thread. Failure: end_output() tells that of print_out(); that of print_err() is
// nobody's to be told.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

namespace herald {

// errno of the first byte that standard output did not take; 0: it took all so far.
inline int& output_errno() {
    static int first = 0;
    return first;
}

inline void print_text(std::FILE* to, const std::string& text) {
    if (std::fwrite(text.data(), 1, text.size(), to) == text.size()) return;
    if (to == stdout && output_errno() == 0) output_errno() = errno;
}

template <class... T>
void print_out(fmt::format_string<T...> format, T&&... values) {
    print_text(stdout, fmt::format(format, std::forward<T>(values)...));
}

template <class... T>
void print_err(fmt::format_string<T...> format, T&&... values) {
    print_text(stderr, fmt::format(format, std::forward<T>(values)...));
}

inline void flush_out() {
    if (std::fflush(stdout) != 0 && output_errno() == 0) output_errno() = errno;
}

// For long listings: nothing more will come through.
inline bool output_failed() { return output_errno() != 0; }

// The last that a program does. Returns its exit status; `failed` where all went well and the
// output was lost.
inline int end_output(const char* program, int status, int failed) {
    flush_out();
    if (!output_failed() && !std::ferror(stdout)) return status;
    print_err("{}: cannot write to standard output: {}\n", program,
              std::strerror(output_failed() ? output_errno() : EIO));
    return status == 0 ? failed : status;
}

}  // namespace herald
