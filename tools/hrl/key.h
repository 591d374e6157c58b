// SPDX-License-Identifier: Apache-2.0
// The verbs of `hrl key`: they make, wrap anew and show the key files that seal journals.
// Promise: a new file is 0600, durable before it has its name, and never in the place of another;
// a file that is wrapped anew is the old one or the new one, whatever happens; no key is printed.
// Layout: docs/formats/keys.md
#pragma once

#include "tools/hrl/verbs.h"
#include "user/seal/root_key.h"

namespace herald::hrl_tool {

// A root key file, and where its passphrase or PIN is.
struct RootPlace {
    std::filesystem::path root;
    std::filesystem::path secret_file;
};

struct NewRootOptions {
    std::filesystem::path target;
    seal::RootSource source = seal::RootSource::file;
    std::filesystem::path secret_file;
    seal::TokenPlace place;
    bool json = false;
};
struct NewMachineOptions {
    std::filesystem::path target;  // a new file, or a directory, where it is named by its id
    Uuid machine;
    RootPlace by;
    bool json = false;
};
struct RewrapOptions {
    std::vector<std::filesystem::path> files;  // or directories of *.key
    RootPlace from;
    RootPlace to;
    bool json = false;
};
struct ShowOptions {
    std::vector<std::filesystem::path> files;
    RootPlace by;  // nothing: only what the files say
    bool json = false;
};

int new_root(const NewRootOptions& options);
int new_machine(const NewMachineOptions& options);
int rewrap(const RewrapOptions& options);
int show_keys(const ShowOptions& options);

// `hrl key` on the command line.
class KeyVerbs {
  public:
    explicit KeyVerbs(CLI::App& app);
    bool chosen() const { return verb_->parsed(); }
    int run() const;

  private:
    CLI::App* add_verb(const char* name, const char* what, bool& json);

    CLI::App* verb_;
    NewRootOptions new_root_;
    NewMachineOptions new_machine_;
    RewrapOptions rewrap_;
    ShowOptions show_;
};

}  // namespace herald::hrl_tool
