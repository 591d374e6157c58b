// SPDX-License-Identifier: Apache-2.0
// hrl key: key files from the first to the last day, as an operator makes them, and golden journals
// opened with golden keys.
#include <sys/stat.h>

#include <fstream>

#include "tests/unit/hrl/tool_directory.h"

using namespace herald;
using namespace herald::hrl::test;
using herald::test::Run;

namespace {

constexpr const char* kModule = "/usr/lib/softhsm/libsofthsm2.so";
const std::string kMachine = "8d3c1f52-60b7-4c1e-9a27-5d0f43b1e6aa";

struct KeyDirectory : ToolDirectory {
    KeyDirectory() { std::filesystem::create_directory(at("keys")); }
    void secret(const std::string& name, const std::string& text) const {
        REQUIRE(replace_file(at(name), as_bytes(text + "\n"), 0600));
    }
    mode_t mode(const std::string& name) const {
        struct stat st {};
        REQUIRE(::stat(at(name).c_str(), &st) == 0);
        return st.st_mode & 07777;
    }
    // The key of a file, by the library and not by the program.
    Bytes key_in(const std::string& root_name, const std::string& name,
                 const std::string& secret_name = "") const {
        const auto ask = [&](const std::string&) {
            return seal::read_secret_file(at(secret_name));
        };
        auto root = seal::open_root_key(at(root_name), ask);
        INFO((root ? "" : root.error().message));
        REQUIRE(root);
        auto wrapped = seal::parse_machine_key(read(name), name);
        REQUIRE(wrapped);
        auto key = seal::unwrap_machine_key(*wrapped, **root);
        INFO((key ? "" : key.error().message));
        REQUIRE(key);
        CHECK(to_string(key->machine) == kMachine);
        return Bytes(key->key.view().begin(), key->key.view().end());
    }
};

std::string hex_of(const Bytes& bytes) {
    std::string text;
    for (const std::byte b : bytes) text += fmt::format("{:02x}", unsigned(b));
    return text;
}

}  // namespace

TEST_CASE(
    "hrl key makes keys that the library opens, durable, private and never in another's place") {
    KeyDirectory files;
    // However open the user's new files are.
    files.ends("umask 0; hrl key new-root root.key", 0, "keep it apart");
    files.ends("umask 0; hrl key new-machine keys --machine " + kMachine + " --key root.key", 0,
               "machine key");
    files.ends("hrl key new-machine db.key --machine " + kMachine + " --key root.key", 0, kMachine);
    const auto shown = files.json("hrl key show keys/*.key db.key --key root.key --json");
    REQUIRE(shown.size() == 2);
    const std::string first = shown[0]["file"];
    CHECK(first == "keys/" + shown[0]["key"].get<std::string>() + ".key");
    CHECK(files.mode("root.key") == 0600);
    CHECK(files.mode(first) == 0600);
    CHECK(files.key_in("root.key", first) != files.key_in("root.key", "db.key"));
    for (const auto& one : shown) CHECK(one["opens"] == true);

    const Bytes root = files.read("root.key");
    const Bytes key = files.read("db.key");
    files.ends("hrl key new-root root.key", 2, "root.key exists");
    files.ends("hrl key new-root db.key", 2, "db.key exists");
    files.ends("hrl key new-machine db.key --machine " + kMachine + " --key root.key", 2, "exists");
    std::filesystem::create_symlink("nowhere", files.at("link.key"));
    files.ends("hrl key new-root link.key", 2, "exists");
    CHECK(files.read("root.key") == root);
    CHECK(files.read("db.key") == key);
    CHECK_FALSE(files.exists("nowhere"));
    // Nothing unfinished is left, which would be a key that nobody knows of.
    CHECK(files.shell("ls | grep -c part").output == "0\n");

    // The new name is durable before it is told: the file, then its directory.
    const Run traced = files.shell(
        "command -v strace > /dev/null || echo no strace; strace -f -e "
        "trace=fsync,fdatasync,link,linkat hrl key new-root traced.key 2>&1 | grep -o '^[a-z]*'");
    if (!traced.has("no strace")) {
        INFO(traced.output);
        const size_t synced = traced.output.find("sync");
        const size_t named = traced.output.find("link");
        REQUIRE(named != std::string::npos);
        CHECK(synced < named);
        CHECK(traced.output.find("sync", named) != std::string::npos);
    }
}

TEST_CASE("hrl key never prints a key") {
    KeyDirectory files;
    files.secret("phrase", "correct horse battery staple");
    std::string said;
    for (const std::string command :
         {"hrl key new-root root.key", "hrl key new-root two.key --json",
          "hrl key new-machine db.key --key root.key --machine ", "hrl key show root.key db.key",
          "hrl key show root.key db.key --key root.key --json",
          "hrl key new-root phrase.key --source passphrase --secret-file phrase",
          "hrl key rewrap db.key --key root.key --new-key two.key"}) {
        const Run run = files.shell(command + (command.ends_with("--machine ") ? kMachine : ""));
        INFO(command << run.output);
        CHECK(run.status == 0);
        said += run.output;
    }
    CHECK(said.find(hex_of(files.key_in("two.key", "db.key"))) == std::string::npos);
    for (const std::string name : {"root.key", "two.key"}) {
        const std::string text(as_text(files.read(name)));
        const size_t at = text.find("\nkey ") + 5;
        REQUIRE(text.find("\nkey ") != std::string::npos);
        CHECK(said.find(text.substr(at, 64)) == std::string::npos);
    }
    CHECK(said.find("correct horse") == std::string::npos);
}

TEST_CASE("hrl key rewrap changes the root key and no machine key, all or nothing, and again") {
    KeyDirectory files;
    files.secret("phrase", "correct horse battery staple");
    files.secret("wrong", "incorrect horse");
    files.ends("hrl key new-root old.key", 0, "");
    files.ends("hrl key new-root stranger.key", 0, "");
    files.ends("hrl key new-root new.key --source passphrase --secret-file phrase", 0,
               "source passphrase");
    const auto add = [&](const std::string& name, const std::string& root) {
        files.ends("hrl key new-machine keys/" + name + " --machine " + kMachine + " --key " + root,
                   0, "");
    };
    add("a.key", "old.key");
    add("b.key", "old.key");
    add("c.key", "stranger.key");
    const Bytes a = files.key_in("old.key", "keys/a.key");
    const Bytes b = files.key_in("old.key", "keys/b.key");
    const Bytes a_file = files.read("keys/a.key");
    const std::string command =
        "hrl key rewrap keys --key old.key --new-key new.key --new-secret-file ";
    // One that cannot be unwrapped: none is replaced.
    files.ends(command + "phrase", 2, "keys/c.key");
    CHECK(files.read("keys/a.key") == a_file);
    files.ends("rm keys/c.key", 0, "");
    files.ends(command + "wrong", 2, "the passphrase is wrong");
    files.ends(command + "phrase && hrl key show keys/a.key", 0, "wrapped by root key");
    CHECK(files.key_in("new.key", "keys/a.key", "phrase") == a);
    CHECK(files.key_in("new.key", "keys/b.key", "phrase") == b);
    CHECK(files.mode("keys/a.key") == 0600);
    files.ends("hrl key show keys/a.key --key old.key", 2, "does not open");
    // As after an interruption: what is done is left alone.
    const Bytes done = files.read("keys/a.key");
    add("d.key", "old.key");
    const auto again = files.json(command + "phrase --json");
    REQUIRE(again.size() == 3);
    CHECK(again[0]["rewrapped"] == false);
    CHECK(again[2]["rewrapped"] == true);
    CHECK(files.read("keys/a.key") == done);
    files.ends("hrl key rewrap keys --key old.key --new-key old.key", 2, "the same root key");
    // Through a link the file that it leads to.
    std::filesystem::create_symlink("keys/d.key", files.at("link.key"));
    files.ends("hrl key rewrap link.key --key new.key --secret-file phrase --new-key old.key", 0,
               "link.key");
    CHECK(std::filesystem::is_symlink(files.at("link.key")));
    CHECK(files.key_in("old.key", "keys/d.key").size() == 32);
}

TEST_CASE("hrl key says what is wrong, with the status that belongs to it") {
    KeyDirectory files;
    files.secret("phrase", "correct horse");
    files.ends("hrl key new-root root.key", 0, "");
    files.ends("hrl key new-machine a.key --key root.key --machine " + kMachine, 0, "");
    const std::string machine = " --machine " + kMachine;
    for (const auto& [command, why] : std::vector<std::pair<std::string, std::string>>{
             {"new-root x --source passphrase", "give --secret-file"},
             {"new-root x --secret-file phrase", "belongs to --source"},
             {"new-root x --token t", "belong to --source token"},
             {"new-root x --source token --secret-file phrase", "wants --module"},
             {"new-root x --source token --secret-file phrase --module m.so --token t --object o",
              "the whole path"},
             {"new-root x --source token --secret-file phrase --module /no/m.so --token t "
              "--object o",
              "/no/m.so"},
             {"new-root x --source tape", "not understood"},
             {"new-root no/where/x", "no/where"},
             {"new-machine x --key root.key", "--machine"},
             {"new-machine x --key root.key --machine 00000000-0000-0000-0000-000000000000",
              "not an id"},
             {"new-machine x --key none" + machine, "none"},
             {"rewrap keys --key root.key --new-key root.key", "there is no machine key"},
             {"show none", "none"},
             {"bogus", "hrl key --help"},
             {"", "hrl key --help"}}) {
        files.ends("hrl key " + command, 2, why);
        CHECK_FALSE(files.exists("x"));
    }
    files.ends("hrl key new-machine x --key a.key" + machine, 1, "not a herald-root-key");
    CHECK_FALSE(files.exists("x"));
    Bytes damaged = files.read("a.key");
    damaged[60] ^= std::byte{1};
    files.write("damaged.key", damaged);
    files.ends("hrl key show damaged.key", 1, "damaged.key");
    files.ends("hrl key show damaged.key a.key", 1, "a.key: machine key");
    const Bytes before = files.read("a.key");
    files.ends("hrl key new-root two.key", 0, "");
    files.ends("hrl key rewrap a.key damaged.key --key root.key --new-key two.key", 1,
               "damaged.key");
    CHECK(files.read("a.key") == before);
    files.ends("chmod 644 root.key; hrl key new-machine x --key root.key" + machine, 2,
               "chmod 600");
}

TEST_CASE("golden sealed journals open with the golden key files") {
    KeyDirectory files;
    const std::string golden = HERALD_SOURCE_DIR "/tests/golden";
    files.secret("phrase", "correct horse battery staple");
    files.ends(
        "cp " + golden + "/keys/*.root . && chmod 600 *.root && cp " + golden + "/keys/*.key keys",
        0, "");
    const std::string journal = golden + "/hrl/example_sealed.hrl";
    files.ends("hrl verify " + journal + " --key file.root --keys keys", 0, "ok");
    files.ends("hrl verify " + journal + " --key passphrase.root --keys keys --secret-file phrase",
               0, "ok");
    files.ends("hrl key show token.root", 0, "token herald test");
}

TEST_CASE("hrl key makes and uses a root key on a token") {
    if (!std::filesystem::exists(kModule)) {
        const char* tier = std::getenv("HERALD_TIER");
        if (tier && std::string(tier) != "check") FAIL("softhsm2 is wanted in this tier");
        std::puts("SKIPPED: softhsm2 is not installed");
        return;
    }
    KeyDirectory files;
    files.secret("pin", "4711");
    files.secret("wrong", "9999");
    std::filesystem::create_directory(files.at("tokens"));
    std::ofstream(files.at("conf")) << "directories.tokendir = " << files.at("tokens").native()
                                    << "\nobjectstore.backend = file\nlog.level = ERROR\n";
    const std::string env = "export SOFTHSM2_CONF=" + files.at("conf").native() + "; ";
    // Its import leaves out bytes that are white space, so random ones would do only at times.
    files.ends(env +
                   "printf 0123456789abcdef0123456789abcdef > aes && softhsm2-util --init-token "
                   "--free --label "
                   "backup --pin 4711 --so-pin 0815 && softhsm2-util --import aes --aes --token "
                   "backup --label herald --id 01 --pin 4711",
               0, "");
    const std::string place =
        std::string(" --source token --token backup --object herald --module ") + kModule;
    files.ends(env + "hrl key new-root root.key --secret-file wrong" + place, 2,
               "the PIN is wrong");
    CHECK_FALSE(files.exists("root.key"));
    files.ends(env + "hrl key new-root root.key --secret-file pin" + place, 0, "object herald");
    files.ends(
        env + "hrl key new-machine keys --key root.key --secret-file pin --machine " + kMachine, 0,
        "machine key");
    files.ends(env + "hrl key show keys/*.key --key root.key --secret-file pin", 0, "it opens");
    files.ends("hrl key new-root file.key", 0, "");
    files.ends(env + "hrl key rewrap keys --key root.key --secret-file pin --new-key file.key", 0,
               "wrapped by");
    files.ends("hrl key show keys/*.key --key file.key", 0, "it opens");
}
