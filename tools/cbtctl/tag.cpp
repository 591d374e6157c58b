// SPDX-License-Identifier: Apache-2.0
// tag: a recovery point, and optionally a command that runs while the filesystems are frozen.
// The replicator holds the freeze for us; when we die the connection closes and it thaws.
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "tools/cbtctl/commands.h"
#include "user/base/output.h"
#include "user/base/terminal.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
// After the replicator's own deadline it has this long to say so.
constexpr auto kAfterDeadline = std::chrono::seconds(5);

struct Ran {
    std::string failure;  // empty: exit status 0
    std::chrono::nanoseconds took{0};
    bool overrun = false;  // the replicator spoke, or fell silent, before the command ended
};

// In a process group of its own, so that an overrun ends all of it. It ends with us, too.
pid_t start_shell(const std::string& command) {
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
}

Ran run_while_frozen(const std::string& command, int control_fd,
                     std::chrono::milliseconds deadline) {
    Ran ran;
    const auto started = Clock::now();
    const pid_t pid = start_shell(command);
    if (pid < 0) {
        ran.failure = "it could not be started: " + errno_text(errno);
        return ran;
    }
    ::setpgid(pid, pid);  // as the child does: whoever comes first
    const Fd ended(int(::syscall(SYS_pidfd_open, pid, 0)));
    pollfd polled[2] = {{ended.get(), POLLIN, 0}, {control_fd, POLLIN, 0}};
    const auto until = started + deadline + kAfterDeadline;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
        const int rc = ::poll(polled, 2, int(std::max<int64_t>(0, left.count())));
        if (rc < 0 && errno == EINTR) continue;
        if (rc > 0 && polled[0].revents) break;
        ran.overrun = true;
        ::kill(-pid, SIGKILL);
        break;
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    ran.took = Clock::now() - started;
    if (ran.overrun) {
        ran.failure = "it was still running when the freeze ended and was killed";
    } else if (WIFSIGNALED(status)) {
        ran.failure = fmt::format("it was ended by signal {}", WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
        ran.failure = fmt::format("it ended with status {}", WEXITSTATUS(status));
    }
    return ran;
}

int refused(const Ran& ran, const std::string& command, const std::string& why) {
    print_err("cbtctl: no point was made: the command \"{}\" ran for {} and {}{}{}\n", command,
              human_duration(ran.took), ran.failure, why.empty() ? "" : "; ", why);
    return kCommandFailed;
}

std::string ms_text(double ms) {
    return human_duration(std::chrono::nanoseconds(int64_t(ms * 1e6)));
}

}  // namespace

int tag(const Context& context, const TagOptions& options) {
    auto client = agent::ControlClient::connect(context.socket);
    if (!client) return report(client.error()), kNoReplicator;
    const bool hold = !options.while_frozen.empty();
    auto sent = client->send(
        {{"op", "tag"}, {"disk", options.disk}, {"name", options.name}, {"hold", hold}});
    const bool terminal = is_terminal(stderr) && !context.json;
    const auto clear = [&] {
        if (terminal) print_err("\r\x1b[K");
    };
    Ran ran;
    bool has_run = false;
    for (;;) {
        auto message = client->next(options.timeout);
        if (!message) {
            clear();
            if (!sent) return report(sent.error());
            if (has_run && !ran.failure.empty()) {
                return refused(ran, options.while_frozen, message.error().message);
            }
            return report(message.error());
        }
        if (auto error = agent::error_of(*message); !error) {
            clear();
            if (has_run && !ran.failure.empty()) {
                return refused(ran, options.while_frozen, error.error().message);
            }
            return report(error.error());
        }
        if (has(*message, "phase")) {
            if (terminal) print_err("\r\x1b[K{} ...", text(*message, "phase"));
            continue;
        }
        if (has(*message, "frozen")) {
            if (has_run || !hold) continue;
            clear();
            has_run = true;
            ran = run_while_frozen(options.while_frozen, client->connection().fd(),
                                   std::chrono::milliseconds(number(*message, "deadline_ms")));
            if (ran.overrun) continue;  // the next message says what the replicator did
            sent = client->send(
                ran.failure.empty()
                    ? json{{"op", "thaw"}}
                    : json{{"op", "abort"}, {"cause", "the command failed: " + ran.failure}});
            continue;
        }
        const auto point = message->find("point");
        if (point == message->end() || !point->is_object()) continue;
        clear();
        if (has_run && !ran.failure.empty()) return refused(ran, options.while_frozen, "");
        if (context.json) {
            json out = *message;
            if (has_run) out["command_ms"] = double(ran.took.count()) / 1e6;
            print_json(out);
            return kDone;
        }
        std::string name = text(*point, "name");
        print_out("point {}{}  {}\n", text(*point, "id"), name.empty() ? "" : "  " + name,
                  time_text(number(*point, "time_ns")));
        const double frozen = real(*point, "frozen_ms"), held = real(*point, "hold_ms");
        if (has_run) {
            print_out("  frozen {}, of which the command {} and Herald {}\n", ms_text(frozen),
                      human_duration(ran.took), ms_text(std::max(0.0, frozen - held)));
        } else {
            print_out("  frozen {}\n", ms_text(frozen));
        }
        for (const json& item : point->value("not_frozen", json::array())) {
            if (item.is_string()) print_out("  not frozen: {}\n", item.get<std::string>());
        }
        print_out("  consistency {}\n", text(*point, "consistency"));
        print_out("  stored at the server, position {}\n", number(*point, "position"));
        return kDone;
    }
}

}  // namespace herald::cbtctl
