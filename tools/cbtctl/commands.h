// SPDX-License-Identifier: Apache-2.0
// cbtctl's commands: each returns an exit status and has printed everything by then.
// Callers: main(). Failure: a message on standard error that says what failed and what to do next.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "user/agent/control.h"

namespace herald::cbtctl {

// The exit statuses, as in the man page.
enum Exit : int {
    kDone = 0,
    kFailed = 1,         // the replicator refused or reported an error; a doctor's check failed
    kUsage = 2,          // wrong command line
    kNoReplicator = 3,   // nobody answers on the socket
    kTimeout = 4,        // --timeout passed
    kCommandFailed = 5,  // the --while-frozen command failed: the point was refused
};

struct Context {
    std::filesystem::path socket;
    bool json = false;
};

struct TagOptions {
    std::string disk;
    std::string name;
    std::string while_frozen;  // empty: none
    std::chrono::milliseconds timeout{};
};

struct FormatMetaOptions {
    std::string meta;
    std::string disk;
    bool force = false;
};

struct ProtectOptions {
    std::string path;
    std::string meta;              // empty: none
    std::string tracker = "auto";  // "dm_cbt", "ebpf"
    bool tracker_only = false;     // the replicator is not asked
};

int list(const Context& context);
int status(const Context& context, const std::string& disk);
int wait_synced(const Context& context, const std::string& disk, std::chrono::milliseconds timeout);
int map(const Context& context, const std::string& disk, uint64_t runs_max);
int tag(const Context& context, const TagOptions& options);
int tag_disks(const Context& context, const std::vector<std::string>& disks);
int format_meta(const Context& context, const FormatMetaOptions& options);
int stats(const Context& context, const std::string& disk);
// count 0: until it is stopped.
int watch(const Context& context, const std::string& disk, std::chrono::milliseconds every,
          uint64_t count);
int protect(const Context& context, const ProtectOptions& options);
int unprotect(const Context& context, const std::string& disk, bool tracker_only);
// Each line of the file: path of a volume, and of its meta device or "-". Goes on after a failure.
int assemble(const Context& context, const std::string& file);
int resync(const Context& context, const std::string& disk, const std::string& how);
int doctor(const Context& context, const std::filesystem::path& guardian_socket);

// Shared by the commands.
int report(const Error& error);  // prints it; the exit status for it
// Connects and asks once; a failed connection exits with kNoReplicator.
Result<nlohmann::json> ask(const Context& context, const nlohmann::json& request,
                           std::chrono::milliseconds timeout, int& exit);
void print_json(const nlohmann::json& value);

// The path of a disk that a person named: a path, a kernel name, or an id that the replicator
// knows.
std::string path_of(const Context& context, const std::string& disk);
// The driver's dirty map of a disk that it tracks, as the replicator's answer to `map`.
std::optional<nlohmann::json> driver_map(const Context& context, const std::string& disk,
                                         uint64_t runs_max);

// Fields of an answer; a missing, null or mistyped one is 0, empty or nothing.
uint64_t number(const nlohmann::json& from, const char* name);
double real(const nlohmann::json& from, const char* name);
std::string text(const nlohmann::json& from, const char* name);
bool has(const nlohmann::json& from, const char* name);  // there and not null

// "in sync 12 %", "protected" and so on, with the cause where there is one.
std::string state_text(const nlohmann::json& disk);
std::string time_text(uint64_t time_ns);

}  // namespace herald::cbtctl
