// SPDX-License-Identifier: Apache-2.0
// status --wait-synced: a progress line until the disk's content has reached the server.
#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <thread>

#include "tools/cbtctl/commands.h"
#include "user/base/output.h"
#include "user/base/terminal.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
constexpr auto kAsk = std::chrono::milliseconds(250);
constexpr auto kAnswer = std::chrono::seconds(10);

bool syncing(const json& disk) {
    const auto synced = disk.find("synced");
    return synced == disk.end() || !synced->is_boolean() || !synced->get<bool>();
}

}  // namespace

int wait_synced(const Context& context, const std::string& name,
                std::chrono::milliseconds timeout) {
    const auto started = Clock::now();
    std::optional<Progress> progress;
    uint64_t total = 0;
    std::string said;
    for (;;) {
        int exit = kDone;
        auto answer = ask(context, {{"op", "status"}, {"disk", name}}, kAnswer, exit);
        const bool late = timeout.count() > 0 && Clock::now() - started >= timeout;
        if (!answer) {
            // A replicator that restarts is part of waiting; one that was never there is not.
            const bool again =
                progress && (exit == kNoReplicator || answer.error().kind == ErrorKind::retry);
            if (!again || late) {
                progress.reset();
                return report(answer.error()), late && again ? int(kTimeout) : exit;
            }
            std::this_thread::sleep_for(kAsk);
            continue;
        }
        if (text(*answer, "state") == "stopped") {
            progress.reset();
            return report(
                {ErrorKind::operator_needed,
                 fmt::format("{} is stopped and will not sync: {}", name, text(*answer, "cause")),
                 0});
        }
        const auto sync = answer->find("sync");
        if (sync != answer->end() && sync->is_object()) {
            total = number(*sync, "total_bytes");
            if (!progress) progress.emplace("sync " + text(*answer, "path"), total);
            progress->set_total(total);
            progress->update(number(*sync, "done_bytes"));
        } else if (!progress && syncing(*answer)) {
            total = number(*answer, "bytes");
            progress.emplace("sync " + text(*answer, "path"), total);
        }
        // What keeps the sync from going on is worth a line, once for each cause.
        if (text(*answer, "state") == "degraded" && text(*answer, "cause") != said) {
            said = text(*answer, "cause");
            print_err("{}: {}; waiting ({})\n", text(*answer, "path"), said,
                      text(*answer, "remedy"));
        }
        if (!syncing(*answer)) {
            if (progress) {
                // The last answer may have come well before the end.
                progress->update(total);
                progress.reset();
            }
            if (context.json) {
                print_json(*answer);
            } else {
                print_out("{} is in sync: {}\n", text(*answer, "path"), state_text(*answer));
            }
            return kDone;
        }
        if (late) {
            progress.reset();
            print_err(
                "cbtctl: {} is not in sync after {}; it goes on in the background: cbtctl "
                "status {}\n",
                name, human_duration(timeout), name);
            return kTimeout;
        }
        std::this_thread::sleep_for(kAsk);
    }
}

}  // namespace herald::cbtctl
