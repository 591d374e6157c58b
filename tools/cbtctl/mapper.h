// SPDX-License-Identifier: Apache-2.0
// Mapper: device-mapper devices and their tables, by the program dmsetup.
// Promise: a table is handed over on standard input, so that the keys in one show in no list of
// processes; nothing waits for udev. Callers: one thread. Failure: dmsetup's words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "herald/abi/cbt.h"
#include "tools/cbtctl/run_program.h"

namespace herald::cbtctl {

// One line of a table.
struct TableLine {
    uint64_t first = 0;
    uint64_t sectors = 0;
    std::string target;
    std::string arguments;
};

// Nothing: the text is no table.
std::optional<std::vector<TableLine>> parse_table(const std::string& text);

// The number of a block device; operator_needed where the path is none.
Result<herald_cbt_disk_abi> device_number(const std::string& path);
// The name of a device-mapper device; nothing: it is another kind of device.
std::optional<std::string> mapper_name(herald_cbt_disk_abi device);

class Mapper {
  public:
    // Nothing: there is no such device.
    Result<std::optional<herald_cbt_disk_abi>> find(const std::string& name);
    Result<std::string> table(const std::string& name);
    Result<void> create(const std::string& name, const std::string& uuid, const std::string& table);
    // Takes effect with resume().
    Result<void> load(const std::string& name, const std::string& table);
    Result<void> forget_loaded(const std::string& name);
    // One call of the kernel: suspends, puts the loaded table in the place of the other, resumes.
    // It waits for the writes under way, and freezes no filesystem.
    Result<void> resume(const std::string& name);
    Result<bool> suspended(const std::string& name);
    Result<void> remove(const std::string& name);

  private:
    Result<std::string> dmsetup(std::vector<std::string> words, const std::string& input = {});
};

}  // namespace herald::cbtctl
