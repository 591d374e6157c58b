// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/last_heard.h"

#include <ctime>

#include "user/base/terminal.h"

namespace herald::process_server {

namespace {

constexpr char kSilent[] = "silent";

}  // namespace

std::chrono::nanoseconds time_awake_or_not() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

LastHeard::LastHeard(std::chrono::seconds silent_after, HostClock clock)
    : silent_after_(silent_after), clock_(std::move(clock)), started_(now()) {}

LastHeard::Moment LastHeard::now() const {
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    return {clock_(), uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count())};
}

void LastHeard::hear(const Uuid& disk) {
    const Moment moment = now();
    const std::lock_guard hold(lock_);
    // Two requests at once: the later one counts, whichever comes here first.
    Moment& heard = heard_[disk];
    if (moment.at >= heard.at) heard = moment;
}

void LastHeard::note_store(const Uuid& disk, const std::string& why) {
    const std::lock_guard hold(lock_);
    if (why.empty()) {
        refused_.erase(disk);
    } else {
        refused_[disk] = why;
    }
}

void LastHeard::judge(wire::DiskInfo& disk) const {
    Moment since = started_;
    bool heard = false;
    {
        const std::lock_guard hold(lock_);
        if (const auto found = heard_.find(disk.disk); found != heard_.end()) {
            since = found->second;
            heard = true;
        }
        const auto refused = refused_.find(disk.disk);
        if (refused != refused_.end() && disk.cause.empty()) {
            disk.state = "paused";
            disk.cause = refused->second;
        }
    }
    // After the look: a machine that spoke meanwhile was not heard in the future.
    const auto age = std::max(clock_() - since.at, std::chrono::nanoseconds(0));
    disk.last_heard_ns = heard ? since.wall_ns : 0;
    disk.unheard_ms = uint64_t(std::chrono::duration_cast<std::chrono::milliseconds>(age).count());
    if (heard && age < silent_after_) return;
    const std::string was =
        disk.cause.empty() ? disk.state : fmt::format("{} ({})", disk.state, disk.cause);
    disk.cause = fmt::format(
        "nothing was heard from its machine {}: machine, replicator or network may be down "
        "(there: cbtctl status); before, it was {}",
        heard ? "for " + human_duration(age)
              : fmt::format("since this server started {} ago", human_duration(age)),
        was);
    disk.state = kSilent;
}

}  // namespace herald::process_server
