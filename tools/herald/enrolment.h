// SPDX-License-Identifier: Apache-2.0
// Enrolment: the certificate authority of a Herald site, and the folder of certificate, key and
// configuration that each server, machine and operator gets from it.
// Promise: nothing is overwritten; a folder appears complete under its final name or not at all
// (it is built under a hidden name beside it and renamed; an interruption removes it).
// Paths inside a folder are relative to its configuration, so that it works wherever it is copied.
// Callers: one thread. Failure: EEXIST names what is in the way; EINTR after Ctrl-C.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "user/base/result.h"
#include "user/base/uuid.h"

namespace herald::cli {

// Where servers answer and where daemons keep their things; remembered beside the authority's
// key, so that a machine enrolled later gets the same.
struct Site {
    std::vector<std::string> server_hosts = {"127.0.0.1", "localhost"};
    uint16_t port = 9443;
    std::filesystem::path run_dir = "/run/herald";
    std::filesystem::path state_dir = "/var/lib/herald";
    std::filesystem::path store_dir;  // empty: state_dir/store
    unsigned points_every_s = 300;
    unsigned valid_days = 3650;
};

struct InitRequest {
    std::filesystem::path dir;
    Site site;
    std::string machine_name;
    std::string operator_name = "operator";
};

// One folder that was made, for whom, and what it holds.
struct EnrolledFolder {
    std::string what;  // "authority", "server", "machine", "operator"
    std::string name;
    std::filesystem::path path;
    std::vector<std::string> files;
    Uuid machine;  // nil unless a machine's
};

Result<std::vector<EnrolledFolder>> init_site(const InitRequest& request);

enum class EnrolKind { machine, operator_ };
// A further machine or operator, signed by the authority that init_site made in dir; its folder
// is dir/machine-NAME or dir/operator-NAME.
Result<EnrolledFolder> enrol(const std::filesystem::path& dir, EnrolKind kind,
                             const std::string& name);

}  // namespace herald::cli
