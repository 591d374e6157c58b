// SPDX-License-Identifier: Apache-2.0
// A directory of files, the hrl program run in it, and keys to seal with: for tests of the program.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/shell.h"
#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/file.h"
#include "user/seal/machine_key.h"
#include "user/seal/root_key.h"

namespace herald::hrl::test {

struct ToolDirectory {
    herald::test::TempDir dir;

    std::filesystem::path at(const std::string& name) const { return dir.path() / name; }
    bool exists(const std::string& name) const { return std::filesystem::exists(at(name)); }
    void write(const std::string& name, const Bytes& bytes) const {
        REQUIRE(replace_file(at(name), bytes));
    }
    Bytes read(const std::string& name) const {
        auto bytes = read_file(at(name), 1 << 27);
        REQUIRE(bytes);
        return *bytes;
    }
    // Standard error too, unless the command sends it elsewhere.
    herald::test::Run shell(const std::string& command) const {
        return herald::test::run_shell("cd '" + dir.path().native() +
                                       "' && export PATH='" HERALD_BIN_DIR "':\"$PATH\" && ( " +
                                       command + " ) 2>&1");
    }
    nlohmann::json json(const std::string& command, int status = 0) const {
        const herald::test::Run run = shell(command + " 2>/dev/null");
        INFO(command << ": " << run.output);
        REQUIRE(run.status == status);
        return nlohmann::json::parse(run.output);
    }
    // It ends with this status and says this.
    void ends(const std::string& command, int status, const std::string& why) const {
        const herald::test::Run run = shell(command);
        INFO(command << ": " << run.output);
        CHECK(run.status == status);
        CHECK(run.has(why));
    }
};

// Writes `root` and `machine.key` into a directory; seals with the key.
struct ToolKeys {
    seal::MachineKey key;
    std::string options;  // of the command line

    explicit ToolKeys(const ToolDirectory& in, const std::string& prefix = "",
                      uint8_t machine = 0x11)
        : key(seal::MachineKey::create(sample_id(machine))),
          options(" --key " + prefix + "root --keys " + prefix + "machine.key") {
        const auto file = seal::new_root_key();
        auto root = seal::open_root_key(file, "root", nullptr);
        REQUIRE(root);
        auto wrapped = seal::wrap_machine_key(key, **root);
        REQUIRE(wrapped);
        const auto text = seal::format_root_key(file);
        REQUIRE(replace_file(in.at(prefix + "root"), text.view(), 0600));
        REQUIRE(replace_file(in.at(prefix + "machine.key"),
                             as_bytes(seal::format_machine_key(*wrapped)), 0600));
    }
};

}  // namespace herald::hrl::test
