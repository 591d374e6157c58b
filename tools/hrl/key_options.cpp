// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/key.h"

namespace herald::hrl_tool {

namespace {

void add_root(CLI::App* verb, RootPlace& place, const std::string& name, const char* whose) {
    verb->add_option("--" + name + "key", place.root, std::string("the root key file ") + whose);
    verb->add_option("--" + name + "secret-file", place.secret_file,
                     "its first line is the passphrase or PIN of that root key");
}

void require_root(CLI::App* verb, const char* name) { verb->get_option(name)->required(); }

}  // namespace

CLI::App* KeyVerbs::add_verb(const char* name, const char* what, bool& json) {
    CLI::App* verb = verb_->add_subcommand(name, what);
    verb->add_flag("--json", json, "print JSON");
    return verb;
}

KeyVerbs::KeyVerbs(CLI::App& app) {
    verb_ = app.add_subcommand("key", "Make, rotate and look at the keys that seal journals");
    verb_->require_subcommand(1);
    verb_->footer(
        "A machine key seals the journals of one machine; a root key wraps machine keys.\n"
        "Examples:\n"
        "  hrl key new-root root.key\n"
        "  hrl key new-machine keys --machine 8d3c1f52-60b7-4c1e-9a27-5d0f43b1e6aa --key root.key\n"
        "Help on one of them: hrl key new-root --help");

    CLI::App* root = add_verb("new-root", "Make a root key", new_root_.json);
    root->add_option("FILE", new_root_.target, "the new file")->required();
    root->add_option_function<std::string>(
        "--source",
        [this](const std::string& text) {
            if (text == "passphrase") new_root_.source = seal::RootSource::passphrase;
            if (text == "token") new_root_.source = seal::RootSource::token;
            if (text != "file" && text != "passphrase" && text != "token") {
                throw CLI::ValidationError("--source", "not understood: " + text);
            }
        },
        "where the key is: file (as it is without this), passphrase or token");
    root->add_option("--secret-file", new_root_.secret_file,
                     "its first line is the passphrase, or the PIN of the token");
    root->add_option("--module", new_root_.place.module, "token: path of its PKCS#11 module");
    root->add_option("--token", new_root_.place.token, "token: its label");
    root->add_option("--object", new_root_.place.object,
                     "token: the label of an AES-256 key that is on it");
    root->footer(
        "The file of the source 'file' is the key: keep it apart from the journals, and a copy of\n"
        "it: what is sealed opens with no other. Those of a passphrase or token hold no secret.\n"
        "Secret files are yours alone (chmod 600). A token's key is made with the token's own\n"
        "program; it is tried before the file is written.\n"
        "Examples:\n"
        "  hrl key new-root root.key\n"
        "  hrl key new-root root.key --source passphrase --secret-file passphrase\n"
        "  hrl key new-root root.key --source token --module /usr/lib/softhsm/libsofthsm2.so "
        "--token backup --object herald --secret-file pin");

    CLI::App* machine = add_verb("new-machine", "Make a machine key", new_machine_.json);
    machine
        ->add_option("TO", new_machine_.target,
                     "a new file, or a directory, in which it is named by its id")
        ->required();
    machine
        ->add_option_function<std::string>(
            "--machine",
            [this](const std::string& text) {
                const auto id = Uuid::parse(text);
                if (!id || id->is_nil()) {
                    throw CLI::ValidationError("--machine", "not an id of a machine: " + text);
                }
                new_machine_.machine = *id;
            },
            "id of the machine")
        ->required();
    add_root(machine, new_machine_.by, "", "that wraps it");
    require_root(machine, "--key");
    machine->footer(
        "The id of a machine is in each of its journals (hrl info).\n"
        "Examples:\n"
        "  hrl key new-machine keys --machine 8d3c1f52-60b7-4c1e-9a27-5d0f43b1e6aa --key root.key\n"
        "  hrl key new-machine db.key --machine $ID --key root.key --secret-file passphrase");

    CLI::App* rewrap_verb =
        add_verb("rewrap", "Wrap machine keys by another root key", rewrap_.json);
    rewrap_verb->add_option("FILE", rewrap_.files, "machine key files, or directories of them")
        ->required();
    add_root(rewrap_verb, rewrap_.from, "", "that wraps them now");
    add_root(rewrap_verb, rewrap_.to, "new-", "that is to wrap them");
    require_root(rewrap_verb, "--key");
    require_root(rewrap_verb, "--new-key");
    rewrap_verb->footer(
        "The machine keys stay the same, so no journal is written again. All are unwrapped, "
        "wrapped\n"
        "and tried before the first file is replaced; those that the new root key wraps already\n"
        "are left as they are, so it may be run again after it was interrupted.\n"
        "Examples:\n"
        "  hrl key rewrap keys --key root.key --new-key root2.key\n"
        "  hrl key rewrap keys/*.key --key root.key --new-key root2.key --new-secret-file phrase");

    CLI::App* show = add_verb("show", "What a key file says, and whether it opens", show_.json);
    show->add_option("FILE", show_.files, "root key and machine key files")->required();
    add_root(show, show_.by, "", "to open the machine keys with");
    show->footer(
        "No key is shown. With --key it is told of each machine key whether that root key opens "
        "it.\n"
        "Examples:\n"
        "  hrl key show root.key keys/*.key\n"
        "  hrl key show keys/*.key --key root.key --json | jq '.[].opens'");
}

int KeyVerbs::run() const {
    if (verb_->got_subcommand("new-root")) return new_root(new_root_);
    if (verb_->got_subcommand("new-machine")) return new_machine(new_machine_);
    if (verb_->got_subcommand("rewrap")) return rewrap(rewrap_);
    return show_keys(show_);
}

}  // namespace herald::hrl_tool
