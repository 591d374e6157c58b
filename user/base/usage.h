// SPDX-License-Identifier: Apache-2.0
// usage_error: what a program says when its command line could not be read.
// It names the program, what is wrong and where help is; "there is no command 'lst'" rather than
// "a subcommand is required". --help and --version come here, too: CLI11 reports them as errors.
// Header only: programs use CLI11, the library base does not.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

namespace herald {

// Returns the exit status: 0 for --help and --version, otherwise `wrong_usage`.
inline int usage_error(const CLI::App& app, const CLI::ParseError& error, int wrong_usage) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::string command = app.get_name();
    for (const CLI::App* verb : app.get_subcommands()) command += " " + verb->get_name();
    std::string what = error.what();
    const auto& rest = app.remaining();
    if (command == app.get_name() && !rest.empty() && rest.front()[0] != '-') {
        std::string verbs;
        for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
            if (!verb->get_name().empty()) verbs += (verbs.empty() ? "" : ", ") + verb->get_name();
        what = fmt::format("there is no command '{}'; there are: {}", rest.front(), verbs);
    } else if (command == app.get_name() && error.get_name() == "RequiredError" &&
               app.get_require_subcommand_min() > 0) {
        what = "a command is missing";
    }
    fmt::print(stderr, "{}: {}\nHelp, with examples: {} --help\n", app.get_name(), what, command);
    return wrong_usage;
}

}  // namespace herald
