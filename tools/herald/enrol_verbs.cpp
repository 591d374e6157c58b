// SPDX-License-Identifier: Apache-2.0
// init, enroll: make the folders, then say which goes where.
#include <nlohmann/json.hpp>

#include "tools/herald/verbs.h"
#include "user/base/output.h"

namespace herald::cli {

namespace {

using Json = nlohmann::ordered_json;

Json to_json(const EnrolledFolder& folder) {
    Json json{{"what", folder.what},
              {"name", folder.name},
              {"path", folder.path.native()},
              {"files", folder.files}};
    if (!folder.machine.is_nil()) json["machine"] = to_string(folder.machine);
    return json;
}

std::string with_commas(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

void print_made(const EnrolledFolder& folder) {
    print_out(
        "  {}\n      {}{}\n", folder.path.native(), with_commas(folder.files),
        folder.machine.is_nil() ? "" : fmt::format("; machine id {}", to_string(folder.machine)));
}

void print_machine_steps(const EnrolledFolder& folder) {
    print_out(
        "  on the machine '{}', with the content of {} in /etc/herald:\n"
        "      systemctl enable --now herald-guardian herald-replicator\n"
        "      cbtctl protect /dev/DISK\n",
        folder.name, folder.path.native());
}

void print_operator_steps(const EnrolledFolder& folder) {
    print_out(
        "  where restores are run, with the content of {} in ~/.config/herald:\n"
        "      herald disks\n"
        "      herald restore DISK --latest --to IMAGE\n",
        folder.path.native());
}

constexpr char kKeyAdvice[] =
    "Keys (*.key) are secret: copy each folder over a safe channel to its host and to no other.\n";

// Here a missing file is not a missing disk or point, which has an exit status of its own.
tl::unexpected<Error> no_missing_disk(Error error) {
    if (error.sys == ENOENT) error.sys = 0;
    return tl::unexpected<Error>(std::move(error));
}

}  // namespace

Result<void> run_init(const CommonOptions& common, const InitRequest& request) {
    const auto folders = init_site(request);
    if (!folders) return no_missing_disk(folders.error());
    if (common.json) {
        Json list = Json::array();
        for (const auto& folder : *folders) list.push_back(to_json(folder));
        print_out("{}\n", Json{{"folders", list}}.dump(2));
        return {};
    }
    print_out("Made, for server {} port {}:\n", with_commas(request.site.server_hosts),
              request.site.port);
    for (const auto& folder : *folders) print_made(folder);
    print_out("\nNext:\n");
    for (const auto& folder : *folders) {
        if (folder.what == "server")
            print_out(
                "  on the server, with the content of {} in /etc/herald:\n"
                "      useradd --system --home-dir /var/lib/herald --shell /usr/sbin/nologin "
                "herald\n"
                "      chown -R herald:herald /etc/herald\n"
                "      systemctl enable --now herald-process-server\n",
                folder.path.native());
        if (folder.what == "machine") print_machine_steps(folder);
        if (folder.what == "operator") print_operator_steps(folder);
        if (folder.what == "authority")
            print_out(
                "  keep {} offline: whoever has its key can enrol machines and operators.\n"
                "      Add more with: herald enroll machine NAME --dir {}\n",
                folder.path.native(), folder.path.parent_path().native());
    }
    print_out("\n{}", kKeyAdvice);
    return {};
}

Result<void> run_enrol(const CommonOptions& common, const std::filesystem::path& dir,
                       EnrolKind kind, const std::string& name) {
    const auto folder = enrol(dir, kind, name);
    if (!folder) return no_missing_disk(folder.error());
    if (common.json) {
        print_out("{}\n", to_json(*folder).dump(2));
        return {};
    }
    print_out("Made:\n");
    print_made(*folder);
    print_out("\nNext:\n");
    if (kind == EnrolKind::machine)
        print_machine_steps(*folder);
    else
        print_operator_steps(*folder);
    print_out("\n{}", kKeyAdvice);
    return {};
}

}  // namespace herald::cli
