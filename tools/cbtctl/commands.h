// SPDX-License-Identifier: Apache-2.0
// cbtctl's commands: each returns an exit status and has printed everything by then.
// Callers: main(). Failure: a message on standard error that says what failed and what to do next.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

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

int list(const Context& context);
int status(const Context& context, const std::string& disk);
int wait_synced(const Context& context, const std::string& disk, std::chrono::milliseconds timeout);
int map(const Context& context, const std::string& disk, uint64_t runs_max);
int tag(const Context& context, const TagOptions& options);
int protect(const Context& context, const std::string& path);
int unprotect(const Context& context, const std::string& disk);
int resync(const Context& context, const std::string& disk, const std::string& how);
int doctor(const Context& context, const std::filesystem::path& guardian_socket);

// Shared by the commands.
int report(const Error& error);  // prints it; the exit status for it
// Connects and asks once; a failed connection exits with kNoReplicator.
Result<nlohmann::json> ask(const Context& context, const nlohmann::json& request,
                           std::chrono::milliseconds timeout, int& exit);
void print_json(const nlohmann::json& value);

// Fields of an answer; a missing, null or mistyped one is 0, empty or nothing.
uint64_t number(const nlohmann::json& from, const char* name);
double real(const nlohmann::json& from, const char* name);
std::string text(const nlohmann::json& from, const char* name);
bool has(const nlohmann::json& from, const char* name);  // there and not null

// "in sync 12 %", "protected" and so on, with the cause where there is one.
std::string state_text(const nlohmann::json& disk);
std::string time_text(uint64_t time_ns);

}  // namespace herald::cbtctl
