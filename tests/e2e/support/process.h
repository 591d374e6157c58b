// SPDX-License-Identifier: Apache-2.0
// Process: a program started by a test, with its output kept in files.
// Promise: it is gone when the object is (SIGKILL, to this pid alone), whatever the test did.
// Callers: one thread. Failure: a program that cannot be started is a failed REQUIRE.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace herald::test {

struct Finished {
    int status = -1;  // exit status, or 128 + signal
    std::string out;
    std::string err;
};

class Process {
  public:
    // argv[0] is a path. Output goes to output_dir/NAME.out and NAME.err.
    static Process start(const std::vector<std::string>& argv,
                         const std::filesystem::path& output_dir, const std::string& name);
    Process(Process&& other) noexcept;
    Process& operator=(Process&& other) noexcept;
    ~Process();

    pid_t pid() const { return pid_; }
    void signal(int number) const;
    // Its end, or nothing when it has not come by then.
    std::optional<Finished> wait(std::chrono::milliseconds most);
    bool running();
    std::string err() const;

  private:
    Process() = default;
    pid_t pid_ = -1;
    std::optional<int> status_;
    std::filesystem::path out_;
    std::filesystem::path err_;
};

// Starts it and waits for its end; one that takes longer than a minute fails the test.
Finished run(const std::vector<std::string>& argv, const std::filesystem::path& output_dir);

// The most memory the process has had, in bytes: VmHWM. 0 where it cannot be read.
uint64_t peak_rss_bytes(pid_t pid);

}  // namespace herald::test
