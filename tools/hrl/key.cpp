// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/key.h"

#include "tools/hrl/new_file.h"
#include "tools/hrl/text.h"
#include "user/seal/key_text.h"
#include "user/seal/keyring.h"

namespace herald::hrl_tool {

namespace {

using Json = nlohmann::ordered_json;
using namespace herald::seal;

// The longest place of a token that its file takes; a longer one would not fit into any.
constexpr size_t kPlaceBytesMax = 255;

const char* source_name(RootSource source) {
    if (source == RootSource::file) return "file";
    return source == RootSource::passphrase ? "passphrase" : "token";
}

Json describe(const std::filesystem::path& file, const RootKeyFile& root) {
    Json json{{"file", file.native()},
              {"kind", "root key"},
              {"root", to_string(root.id)},
              {"source", source_name(root.source)}};
    if (root.source == RootSource::passphrase) {
        json["scrypt"] = {{"n", root.cost.n}, {"r", root.cost.r}, {"p", root.cost.p}};
    } else if (root.source == RootSource::token) {
        json["module"] = root.place.module;
        json["token"] = root.place.token;
        json["object"] = root.place.object;
    }
    return json;
}

Json describe(const std::filesystem::path& file, const WrappedKey& key) {
    return {{"file", file.native()},
            {"kind", "machine key"},
            {"machine", to_string(key.machine)},
            {"key", to_string(key.id)},
            {"root", to_string(key.root)}};
}

// One line of what describe() says.
std::string line_of(const Json& json) {
    const auto text = [&](const char* name) { return json[name].get<std::string>(); };
    if (json["kind"] == "root key") {
        std::string line =
            fmt::format("{}: root key {}, source {}", text("file"), text("root"), text("source"));
        if (json.contains("scrypt")) {
            line += fmt::format(", scrypt N {}", json["scrypt"]["n"].get<uint64_t>());
        }
        if (json.contains("token")) {
            line += fmt::format(": object {} on token {} by {}", text("object"), text("token"),
                                text("module"));
        }
        return line;
    }
    return fmt::format("{}: machine key {} of machine {}, wrapped by root key {}", text("file"),
                       text("key"), text("machine"), text("root"));
}

// A file that may be a secret: wiped when it was looked at.
Result<Secret> read_key_file(const std::filesystem::path& path) {
    auto fd = open_file(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    if (!fd) return pass(fd);
    auto size = size_of(fd->get(), path.native());
    if (!size) return pass(size);
    if (*size > kKeyFileBytesMax) {
        return fail(ErrorKind::corrupt, "{}: no key file has this size", path.native());
    }
    Secret text{size_t(*size)};
    auto read = read_exact(fd->get(), 0, text.span(), path.native());
    if (!read) return pass(read);
    return text;
}

Result<WrappedKey> read_machine_key(const std::filesystem::path& path) {
    auto text = read_key_file(path);
    if (!text) return pass(text);
    return parse_machine_key(text->view(), path.native());
}

Result<std::unique_ptr<RootKey>> open_place(const RootPlace& place) {
    if (place.secret_file.empty()) return open_root_key(place.root, nullptr);
    return open_root_key(place.root,
                         [&](const std::string&) { return read_secret_file(place.secret_file); });
}

Result<void> write_new(const std::filesystem::path& target, ByteView text) {
    auto file = NewFile::create(target, 0600);
    if (!file) return pass(file);
    auto written = file->sink().append(text);
    if (!written) return written;
    return file->commit();
}

// Wraps, and does not believe it: what does not open again would be the loss of all that it seals.
Result<WrappedKey> wrap_and_try(const MachineKey& key, RootKey& root) {
    auto wrapped = wrap_machine_key(key, root);
    if (!wrapped) return wrapped;
    auto back = unwrap_machine_key(*wrapped, root);
    if (!back) return pass(back, "a key that was just wrapped");
    if (!equal_secrets(back->key.view(), key.key.view())) {
        return fail(ErrorKind::operator_needed,
                    "root key {} does not give back the key that it wrapped: do not use it",
                    to_string(root.id()));
    }
    return wrapped;
}

Result<RootKeyFile> make_root(const NewRootOptions& options) {
    const bool on_token = options.source == RootSource::token;
    const TokenPlace& place = options.place;
    const bool any_place = !place.module.empty() || !place.token.empty() || !place.object.empty();
    if (!on_token && any_place) {
        return fail(ErrorKind::operator_needed,
                    "--module, --token and --object belong to --source token");
    }
    if (options.source == RootSource::file) {
        if (!options.secret_file.empty()) {
            return fail(ErrorKind::operator_needed,
                        "--secret-file belongs to --source passphrase or token");
        }
        return new_root_key();
    }
    if (options.secret_file.empty()) {
        return fail(ErrorKind::operator_needed, "give --secret-file: a file with the {}",
                    on_token ? "PIN" : "passphrase");
    }
    auto secret = read_secret_file(options.secret_file);
    if (!secret) return pass(secret);
    if (!on_token) return new_passphrase_root(secret->view());
    for (const std::string* part : {&place.module, &place.token, &place.object}) {
        if (part->empty() || part->size() > kPlaceBytesMax) {
            return fail(ErrorKind::operator_needed,
                        "--source token wants --module, --token and --object, of 1 to {} bytes",
                        kPlaceBytesMax);
        }
    }
    if (!std::filesystem::path(place.module).is_absolute()) {
        return fail(ErrorKind::operator_needed, "{}: give the whole path of the module",
                    place.module);
    }
    RootKeyFile file = new_token_root(place);
    const AskSecret answer = [&](const std::string&) -> Result<Secret> { return secret->copy(); };
    auto root = open_root_key(file, options.target.native(), answer);
    if (!root) return pass(root);
    auto tried = wrap_and_try(MachineKey::create(Uuid::random()), **root);
    if (!tried) return pass(tried);
    return file;
}

Result<void> run(const NewRootOptions& options) {
    auto made = make_root(options);
    if (!made) return pass(made);
    const Secret text = format_root_key(*made);
    // What the file could not say, such as a label that is not ASCII, is refused here.
    auto parsed = parse_root_key(text.view(), options.target.native());
    if (!parsed) return pass(parsed);
    auto written = write_new(options.target, text.view());
    if (!written) return written;
    const Json json = describe(options.target, *parsed);
    if (options.json) {
        print_out("{}\n", json_text(json, 2));
        return {};
    }
    print_out("{}\n", line_of(json));
    if (made->source == RootSource::file) {
        print_err(
            "hrl: this file is the key: keep it apart from the journals, and a copy of it; what is "
            "sealed under it opens with no other\n");
    }
    return {};
}

Result<void> run(const NewMachineOptions& options) {
    auto root = open_place(options.by);
    if (!root) return pass(root);
    const MachineKey key = MachineKey::create(options.machine);
    auto wrapped = wrap_and_try(key, **root);
    if (!wrapped) return pass(wrapped);
    std::filesystem::path target = options.target;
    std::error_code ignored;
    if (std::filesystem::is_directory(target, ignored)) target /= to_string(key.id) + ".key";
    auto written = write_new(target, as_bytes(format_machine_key(*wrapped)));
    if (!written) return written;
    const Json json = describe(target, *wrapped);
    print_out("{}\n", options.json ? json_text(json, 2) : line_of(json));
    return {};
}

Result<std::vector<std::filesystem::path>> all_files(
    const std::vector<std::filesystem::path>& named) {
    std::vector<std::filesystem::path> all;
    for (const auto& path : named) {
        auto files = machine_key_files(path);
        if (!files) return pass(files);
        if (files->empty()) {
            return fail(ErrorKind::operator_needed, "{}: there is no machine key", path.native());
        }
        all.insert(all.end(), files->begin(), files->end());
    }
    return all;
}

struct Rewrapped {
    std::filesystem::path file;
    WrappedKey key;
    bool anew = false;  // false: the new root key wrapped it before
};

Result<void> run(const RewrapOptions& options) {
    auto files = all_files(options.files);
    if (!files) return pass(files);
    auto from = open_place(options.from);
    if (!from) return pass(from, "the root key");
    auto to = open_place(options.to);
    if (!to) return pass(to, "the new root key");
    if ((*from)->id() == (*to)->id()) {
        return fail(ErrorKind::operator_needed, "{} and {} are the same root key",
                    options.from.root.native(), options.to.root.native());
    }
    std::vector<Rewrapped> all;
    for (const auto& file : *files) {
        auto old = read_machine_key(file);
        if (!old) return pass(old);
        const bool before = old->root == (*to)->id();
        auto key = unwrap_machine_key(*old, before ? **to : **from);
        if (!key) return pass(key, file.native());
        auto wrapped = before ? std::move(old) : wrap_and_try(*key, **to);
        if (!wrapped) return pass(wrapped, file.native());
        all.push_back({file, std::move(*wrapped), !before});
    }
    Json list = Json::array();
    for (const Rewrapped& one : all) {
        if (one.anew) {
            // Through a link the file itself: a rename would take the place of the link only.
            std::error_code error;
            const auto path = std::filesystem::canonical(one.file, error);
            if (error) return fail_errno(error.value(), fmt::format("find {}", one.file.native()));
            auto replaced = replace_file(path, as_bytes(format_machine_key(one.key)), 0600);
            if (!replaced) return replaced;
        }
        list.push_back(describe(one.file, one.key));
        list.back()["rewrapped"] = one.anew;
        if (options.json) continue;
        print_out("{}{}\n", line_of(list.back()), one.anew ? "" : " already");
    }
    if (options.json) print_out("{}\n", json_text(list, 2));
    return {};
}

// The first line of a file tells what it is; anything else is for the reader of machine keys to
// refuse.
Result<Json> look_at(const std::filesystem::path& file, RootKey* root) {
    auto text = read_key_file(file);
    if (!text) return pass(text);
    if (as_text(text->view()).starts_with("herald-root-key ")) {
        auto parsed = parse_root_key(text->view(), file.native());
        if (!parsed) return pass(parsed);
        return describe(file, *parsed);
    }
    auto wrapped = parse_machine_key(text->view(), file.native());
    if (!wrapped) return pass(wrapped);
    Json json = describe(file, *wrapped);
    if (!root) return json;
    auto key = unwrap_machine_key(*wrapped, *root);
    json["opens"] = key.has_value();
    if (!key) json["problem"] = key.error().message;
    if (!key && key.error().kind == ErrorKind::corrupt) json["damaged"] = true;
    return json;
}

}  // namespace

int new_root(const NewRootOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

int new_machine(const NewMachineOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

int rewrap(const RewrapOptions& options) {
    auto done = run(options);
    return done ? kDone : report(done.error());
}

// Every file is looked at, also after one that is damaged or does not open.
int show_keys(const ShowOptions& options) {
    std::unique_ptr<RootKey> root;
    if (!options.by.root.empty()) {
        auto opened = open_place(options.by);
        if (!opened) return report(opened.error());
        root = std::move(*opened);
    }
    int status = kDone;
    Json list = Json::array();
    for (const auto& file : options.files) {
        auto json = look_at(file, root.get());
        if (!json) {
            status = std::max(status, report(json.error()));
            list.push_back({{"file", file.native()}, {"problem", json.error().message}});
            continue;
        }
        const bool closed = json->contains("problem");
        if (closed) status = std::max(status, json->contains("damaged") ? kDamaged : kRefused);
        if (!options.json) {
            print_out("{}{}\n", line_of(*json),
                      closed                    ? ": does not open"
                      : json->contains("opens") ? "; it opens"
                                                : "");
            if (closed) print_err("hrl: {}\n", (*json)["problem"].get<std::string>());
        }
        list.push_back(std::move(*json));
    }
    if (options.json) print_out("{}\n", json_text(list, 2));
    return status;
}

}  // namespace herald::hrl_tool
