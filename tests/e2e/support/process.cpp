// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/support/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "tests/catch.hpp"

extern char** environ;

namespace herald::test {

namespace {

std::string text_of(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

}  // namespace

Process Process::start(const std::vector<std::string>& argv,
                       const std::filesystem::path& output_dir, const std::string& name) {
    Process process;
    process.out_ = output_dir / (name + ".out");
    process.err_ = output_dir / (name + ".err");
    posix_spawn_file_actions_t actions;
    REQUIRE(::posix_spawn_file_actions_init(&actions) == 0);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC;
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, process.out_.c_str(), flags, 0600);
    ::posix_spawn_file_actions_addopen(&actions, 2, process.err_.c_str(), flags, 0600);
    std::vector<std::string> copy = argv;
    std::vector<char*> pointers;
    for (auto& word : copy) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const int err =
        ::posix_spawn(&process.pid_, copy[0].c_str(), &actions, nullptr, pointers.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    INFO("starting " << argv[0]);
    REQUIRE(err == 0);
    return process;
}

Process::Process(Process&& other) noexcept { *this = std::move(other); }

Process& Process::operator=(Process&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(status_, other.status_);
    std::swap(out_, other.out_);
    std::swap(err_, other.err_);
    return *this;
}

Process::~Process() {
    if (pid_ <= 0 || status_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const {
    if (pid_ > 0 && !status_) ::kill(pid_, number);
}

bool Process::running() {
    if (status_) return false;
    int raw = 0;
    if (::waitpid(pid_, &raw, WNOHANG) != pid_) return true;
    status_ = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return false;
}

std::optional<Finished> Process::wait(std::chrono::milliseconds most) {
    const auto until = std::chrono::steady_clock::now() + most;
    while (running()) {
        if (std::chrono::steady_clock::now() > until) return {};
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return Finished{*status_, text_of(out_), text_of(err_)};
}

std::string Process::err() const { return text_of(err_); }

Finished run(const std::vector<std::string>& argv, const std::filesystem::path& output_dir) {
    auto process = Process::start(argv, output_dir, "run");
    auto finished = process.wait(std::chrono::minutes(1));
    INFO("waiting for " << argv[0]);
    REQUIRE(finished);
    return *finished;
}

uint64_t peak_rss_bytes(pid_t pid) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string word; status >> word;)
        if (word == "VmHWM:") {
            uint64_t kib = 0;
            status >> kib;
            return kib * 1024;
        }
    return 0;
}

}  // namespace herald::test
