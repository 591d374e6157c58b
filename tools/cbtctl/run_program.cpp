// SPDX-License-Identifier: Apache-2.0
#include "tools/cbtctl/run_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "user/base/file.h"

namespace herald::cbtctl {
namespace {

// Files in memory and no pipes: nobody has to read while the other writes.
Result<Fd> scratch(const std::string& content) {
    Fd fd(::memfd_create("cbtctl", MFD_CLOEXEC));
    if (!fd) return fail_errno(errno, "memfd_create");
    auto written = write_exact(fd.get(), 0, as_bytes(content), "memory");
    if (!written) return pass(written);
    return fd;
}

Result<std::string> content(const Fd& fd) {
    auto bytes = size_of(fd.get(), "memory");
    if (!bytes) return pass(bytes);
    std::string text(*bytes, '\0');
    auto read = read_exact(fd.get(), 0, std::as_writable_bytes(std::span(text)), "memory");
    if (!read) return pass(read);
    return text;
}

}  // namespace

Result<Ended> run_program(const std::vector<std::string>& words, const std::string& input) {
    auto in = scratch(input), out = scratch({}), err = scratch({});
    for (const auto* fd : {&in, &out, &err})
        if (!*fd) return pass(*fd);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in->get(), 0);
    posix_spawn_file_actions_adddup2(&actions, out->get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err->get(), 2);
    std::vector<std::string> own = words;
    std::vector<char*> arguments;
    for (std::string& word : own) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t pid = 0;
    const int failed =
        ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    Ended ended;
    if (failed == ENOENT) {
        ended.status = 127;
        ended.err = fmt::format("there is no program {}", words[0]);
        return ended;
    }
    if (failed != 0) return fail_errno(failed, words[0]);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    auto said = content(*out), complained = content(*err);
    if (!said) return pass(said);
    if (!complained) return pass(complained);
    ended.out = std::move(*said);
    ended.err = std::move(*complained);
    return ended;
}

}  // namespace herald::cbtctl
