// SPDX-License-Identifier: Apache-2.0
#include "user/seal/keyring.h"

#include <algorithm>

#include "user/base/file.h"
#include "user/seal/key_text.h"

namespace herald::seal {

namespace {

constexpr size_t kKeyFilesMax = 65536;

}  // namespace

Result<std::vector<std::filesystem::path>> machine_key_files(const std::filesystem::path& path) {
    std::error_code error;
    std::vector<std::filesystem::path> files;
    if (!std::filesystem::is_directory(path, error)) return std::vector{path};
    for (std::filesystem::directory_iterator at(path, error), end; !error && at != end;
         at.increment(error)) {
        if (at->path().extension() == ".key") files.push_back(at->path());
        if (files.size() > kKeyFilesMax) {
            return fail(ErrorKind::operator_needed, "{}: more than {} keys", path.native(),
                        kKeyFilesMax);
        }
    }
    if (error) return fail_errno(error.value(), fmt::format("list {}", path.native()));
    std::sort(files.begin(), files.end());
    return files;
}

void Keyring::add(MachineKey key) {
    const Uuid id = key.id;
    unusable_.erase(id);
    keys_.insert_or_assign(id, std::move(key));
}

void Keyring::add_unusable(const Uuid& key_id, std::string why) {
    if (!keys_.contains(key_id)) unusable_.insert_or_assign(key_id, std::move(why));
}

Result<const MachineKey*> Keyring::find(const Uuid& machine, const Uuid& key_id) const {
    const auto found = keys_.find(key_id);
    if (found == keys_.end()) {
        const auto why = unusable_.find(key_id);
        if (why != unusable_.end()) return fail(ErrorKind::operator_needed, "{}", why->second);
        return fail(ErrorKind::operator_needed, "key {} of machine {} is not here; give it",
                    to_string(key_id), to_string(machine));
    }
    if (found->second.machine != machine) {
        return fail(ErrorKind::corrupt, "key {} belongs to machine {}, not to {}",
                    to_string(key_id), to_string(found->second.machine), to_string(machine));
    }
    return &found->second;
}

Result<Keyring> open_keyring(const KeyOptions& options, const AskSecret& ask) {
    AskSecret answer = ask;
    if (!options.secret_file.empty()) {
        answer = [&](const std::string&) { return read_secret_file(options.secret_file); };
    }
    auto root = open_root_key(options.root, answer);
    if (!root) return pass(root);
    auto files = machine_key_files(options.keys);
    if (!files) return pass(files);
    Keyring keyring;
    std::optional<Error> first_problem;
    for (const auto& path : *files) {
        auto bytes = read_file(path, kKeyFileBytesMax);
        auto wrapped = bytes ? parse_machine_key(*bytes, path.native()) : pass(bytes);
        if (!wrapped) {
            if (!first_problem) first_problem = wrapped.error();
            continue;
        }
        auto key = unwrap_machine_key(*wrapped, **root);
        if (key) {
            keyring.add(std::move(*key));
            continue;
        }
        Error problem = key.error();
        problem.message = fmt::format("{}: {}", path.native(), problem.message);
        keyring.add_unusable(wrapped->id, problem.message);
        if (!first_problem) first_problem = std::move(problem);
    }
    if (keyring.size() != 0) return keyring;
    if (first_problem) return tl::unexpected<Error>(std::move(*first_problem));
    return fail(ErrorKind::operator_needed, "{}: there is no machine key", options.keys.native());
}

}  // namespace herald::seal
