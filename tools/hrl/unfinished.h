// SPDX-License-Identifier: Apache-2.0
// Unfinished: the file that a verb is writing under another name than its final one.
// Promise: a signal that ends the program (Ctrl-C, TERM, HUP, QUIT, PIPE) removes it first; so does
// the destructor, unless keep() was called. One at a time. Callers: one thread.
#pragma once

#include <filesystem>
#include <memory>

#include "user/base/result.h"

namespace herald::hrl_tool {

class Unfinished {
  public:
    // `create` makes the file at `path`, which must not be there before; no signal comes between.
    template <class Create>
    static auto make(const std::filesystem::path& path, std::unique_ptr<Unfinished>& file,
                     Create create) {
        const SignalsHeld held;
        auto created = create();
        if (created) file.reset(new Unfinished(path));
        return created;
    }
    Unfinished(const Unfinished&) = delete;
    Unfinished& operator=(const Unfinished&) = delete;
    ~Unfinished();
    // It has its final name, or another one took charge of it.
    void keep();

  private:
    struct SignalsHeld {
        SignalsHeld();
        ~SignalsHeld();
        SignalsHeld(const SignalsHeld&) = delete;
        SignalsHeld& operator=(const SignalsHeld&) = delete;
    };
    explicit Unfinished(const std::filesystem::path& path);
    bool kept_ = false;
};

}  // namespace herald::hrl_tool
