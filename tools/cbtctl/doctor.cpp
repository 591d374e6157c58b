// SPDX-License-Identifier: Apache-2.0
// doctor: what a protected machine needs, each with its remedy. Its own checks work without a
// replicator; a running one adds its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/timex.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <set>
#include <string>

#include "tools/cbtctl/commands.h"
#include "user/agent/freeze.h"
#include "user/base/io_engine.h"
#include "user/base/output.h"
#include "user/base/terminal.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;

// A check with "advice": true does not fail the whole: protection works without it.
json check(const char* name, bool ok, std::string detail, std::string remedy) {
    return {{"name", name},
            {"ok", ok},
            {"detail", std::move(detail)},
            {"remedy", ok ? std::string() : std::move(remedy)}};
}

json check_root() {
    const bool ok = ::geteuid() == 0;
    return check("root", ok, ok ? "running as root" : "not running as root",
                 "run it again with sudo");
}

json check_btf() {
    const bool ok = ::access("/sys/kernel/btf/vmlinux", R_OK) == 0;
    return check(
        "kernel BTF", ok,
        ok ? "/sys/kernel/btf/vmlinux can be read" : "/sys/kernel/btf/vmlinux is missing",
        "the eBPF tracker needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian's are)");
}

// The tracker mounts one of its own; what a kernel can mount is all there is to check.
json check_bpffs() {
    std::ifstream known("/proc/filesystems");
    bool ok = false;
    for (std::string word; !ok && known >> word;) ok = word == "bpf";
    return check("bpffs", ok, ok ? "the kernel has it" : "this kernel has no BPF filesystem",
                 "the eBPF tracker needs a kernel built with CONFIG_BPF_SYSCALL=y (Debian's are)");
}

json check_io_engine() {
    auto fd = open_file("/dev/zero", O_RDWR);
    if (!fd) return check("I/O engine", false, fd.error().message, "is /dev mounted?");
    auto uring = make_io_engine(IoEngineKind::io_uring, fd->get(), 8);
    if (uring) return check("I/O engine", true, "io_uring works", "");
    auto chosen = make_io_engine(IoEngineKind::automatic, fd->get(), 8);
    const bool ok = chosen && (*chosen)->kind() != IoEngineKind::pread;
    return check("I/O engine", ok,
                 fmt::format("{}; {} is used instead", uring.error().message,
                             chosen ? to_string((*chosen)->kind()) : "nothing"),
                 "allow io_uring (sysctl kernel.io_uring_disabled=0) or libaio (fs.aio-max-nr): "
                 "scans are slow without");
}

json check_clock() {
    timex state{};
    const bool ok = ::adjtimex(&state) >= 0 && !(state.status & STA_UNSYNC);
    json one = check("clock", ok,
                     ok ? fmt::format("synchronized, error at most {}",
                                      human_duration(std::chrono::microseconds(state.maxerror)))
                        : "not synchronized: the times of recovery points may be wrong",
                     "run a time service, unless this machine's host keeps its clock: "
                     "apt-get install chrony");
    one["advice"] = true;
    return one;
}

json check_guardian(const std::filesystem::path& socket) {
    const auto probed = agent::Freezer(socket).probe();
    return check("guardian", bool(probed),
                 probed ? fmt::format("answers on {}", socket.native()) : probed.error().message,
                 "systemctl start herald-guardian");
}

}  // namespace

int doctor(const Context& context, const std::filesystem::path& guardian_socket) {
    json checks = json::array({check_root(), check_btf(), check_bpffs(), check_io_engine(),
                               check_clock(), check_guardian(guardian_socket)});
    int exit = kDone;
    auto answer = ask(context, {{"op", "doctor"}}, std::chrono::seconds(30), exit);
    checks.push_back(check(
        "replicator", bool(answer),
        answer ? fmt::format("answers on {}", context.socket.native()) : answer.error().message,
        "systemctl start herald-replicator; journalctl -u herald-replicator "
        "says why it does not start"));
    if (answer && (*answer)["checks"].is_array()) {
        // The replicator asks the guardian, too; once is enough to read.
        std::set<std::string> had;
        for (const json& one : checks) had.insert(text(one, "name"));
        for (const json& one : (*answer)["checks"])
            if (!had.count(text(one, "name"))) checks.push_back(one);
    }
    const auto says = [](const json& one, const char* name) {
        const auto found = one.find(name);
        return found != one.end() && *found == true;
    };
    const auto passed = [&](const json& one) { return says(one, "ok"); };
    const auto advice = [&](const json& one) { return says(one, "advice"); };
    bool well = true;
    for (const json& one : checks) well = well && (passed(one) || advice(one));
    if (context.json) {
        print_json({{"ok", well}, {"checks", checks}});
        return well ? kDone : kFailed;
    }
    for (const json& one : checks) {
        print_out("{:<5} {:<14} {}\n",
                  passed(one)   ? "ok"
                  : advice(one) ? "note"
                                : "FAIL",
                  text(one, "name"), text(one, "detail"));
        if (!passed(one)) print_out("      {:<14} what to do: {}\n", "", text(one, "remedy"));
    }
    print_out("{}\n", well ? "All is well." : "Something needs attention.");
    return well ? kDone : kFailed;
}

}  // namespace herald::cbtctl
