// SPDX-License-Identifier: Apache-2.0
#include "user/base/usage.h"

#include <unistd.h>

#include <cstdio>

#include "tests/catch.hpp"
#include "user/base/file.h"

using namespace herald;

namespace {

struct Said {
    int status = -1;
    std::string text;
};

// What a program with two verbs says to this command line, on standard error.
Said said_to(const std::string& line) {
    CLI::App app("Cuts and glues.", "tool");
    app.require_subcommand(1);
    app.set_version_flag("--version", "tool 1");
    app.add_subcommand("cut", "Cuts")->add_option("FILE")->required();
    app.add_subcommand("glue", "Glues");
    std::FILE* caught = std::tmpfile();
    REQUIRE(caught);
    std::fflush(stderr);
    const int kept = ::dup(2);
    ::dup2(::fileno(caught), 2);
    Said said;
    try {
        app.parse(line);
    } catch (const CLI::ParseError& error) {
        said.status = usage_error(app, error, 7);
    }
    std::fflush(stderr);
    ::dup2(kept, 2);
    ::close(kept);
    std::rewind(caught);
    for (int c; (c = std::fgetc(caught)) != EOF;) said.text += char(c);
    std::fclose(caught);
    return said;
}

}  // namespace

TEST_CASE("an unknown command is named, with those that there are") {
    const Said said = said_to("gleu");
    CHECK(said.status == 7);
    CHECK(said.text ==
          "tool: there is no command 'gleu'; there are: cut, glue\n"
          "Help, with examples: tool --help\n");
}

TEST_CASE("a missing command, argument or an unknown option says where its help is") {
    CHECK(said_to("").text == "tool: a command is missing\nHelp, with examples: tool --help\n");
    CHECK(said_to("cut").text == "tool: FILE is required\nHelp, with examples: tool cut --help\n");
    const Said unknown = said_to("glue --quickly");
    CHECK(unknown.status == 7);
    CHECK(unknown.text.find("--quickly") != std::string::npos);
    CHECK(unknown.text.find("tool glue --help") != std::string::npos);
}

TEST_CASE("asking for the version is no wrong usage") { CHECK(said_to("--version").status == 0); }
