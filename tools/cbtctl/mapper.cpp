// SPDX-License-Identifier: Apache-2.0
#include "tools/cbtctl/mapper.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace herald::cbtctl {
namespace {

std::string without_end(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    return text;
}

}  // namespace

std::optional<std::vector<TableLine>> parse_table(const std::string& text) {
    std::vector<TableLine> lines;
    std::istringstream rows(text);
    uint64_t end = 0;
    for (std::string row; std::getline(rows, row);) {
        if (without_end(row).empty()) continue;
        std::istringstream words(row);
        TableLine line;
        if (!(words >> line.first >> line.sectors >> line.target) || line.first != end ||
            line.sectors == 0) {
            return std::nullopt;
        }
        std::getline(words >> std::ws, line.arguments);
        line.arguments = without_end(std::move(line.arguments));
        end += line.sectors;
        lines.push_back(std::move(line));
    }
    if (lines.empty()) return std::nullopt;
    return lines;
}

Result<herald_cbt_disk_abi> device_number(const std::string& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return fail_errno(errno, path);
    if (!S_ISBLK(st.st_mode)) {
        return fail(ErrorKind::operator_needed, "{} is not a block device", path);
    }
    return herald_cbt_disk_abi{major(st.st_rdev), minor(st.st_rdev)};
}

std::optional<std::string> mapper_name(herald_cbt_disk_abi device) {
    std::ifstream file(fmt::format("/sys/dev/block/{}:{}/dm/name", device.major, device.minor));
    std::string name;
    if (!std::getline(file, name) || name.empty()) return std::nullopt;
    return name;
}

Result<std::string> Mapper::dmsetup(std::vector<std::string> words, const std::string& input) {
    // Where no udevd makes the nodes, dmsetup does.
    if (::access("/run/udev/control", F_OK) != 0) ::setenv("DM_DISABLE_UDEV", "1", 1);
    words.insert(words.begin(), "dmsetup");
    auto ended = run_program(words, input);
    if (!ended) return pass(ended);
    if (ended->status == 0) return ended->out;
    return fail(ErrorKind::operator_needed, "dmsetup {} {}: {}", words[1], words.back(),
                without_end(ended->err));
}

Result<std::optional<herald_cbt_disk_abi>> Mapper::find(const std::string& name) {
    auto said =
        dmsetup({"info", "-c", "--noheadings", "--separator", " ", "-o", "name,major,minor"});
    if (!said) return pass(said);
    std::istringstream rows(*said);
    for (std::string row; std::getline(rows, row);) {
        std::istringstream words(row);
        std::string found;
        herald_cbt_disk_abi device{};
        if (words >> found >> device.major >> device.minor && found == name) {
            return std::optional(device);
        }
    }
    return std::optional<herald_cbt_disk_abi>();
}

Result<std::string> Mapper::table(const std::string& name) {
    return dmsetup({"table", "--showkeys", name});
}

Result<void> Mapper::create(const std::string& name, const std::string& uuid,
                            const std::string& table) {
    auto done = dmsetup({"create", "--noudevsync", "--uuid", uuid, name}, table);
    if (!done) return pass(done);
    return {};
}

Result<void> Mapper::load(const std::string& name, const std::string& table) {
    auto done = dmsetup({"load", name}, table);
    if (!done) return pass(done);
    return {};
}

Result<void> Mapper::forget_loaded(const std::string& name) {
    auto done = dmsetup({"clear", name});
    if (!done) return pass(done);
    return {};
}

Result<void> Mapper::resume(const std::string& name) {
    auto done = dmsetup({"resume", "--noudevsync", "--nolockfs", name});
    if (!done) return pass(done);
    return {};
}

Result<bool> Mapper::suspended(const std::string& name) {
    auto said = dmsetup({"info", "-c", "--noheadings", "-o", "suspended", name});
    if (!said) return pass(said);
    return said->find("Suspended") != std::string::npos;
}

Result<void> Mapper::remove(const std::string& name) {
    auto done = dmsetup({"remove", "--noudevsync", "--retry", name});
    if (!done) return pass(done);
    return {};
}

}  // namespace herald::cbtctl
