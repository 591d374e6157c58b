// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/enrolment.h"

#include <dirent.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>

#include "tools/herald/config_text.h"
#include "tools/herald/interrupt.h"
#include "user/base/file.h"
#include "user/wire/authority.h"

namespace herald::cli {

namespace {

namespace fs = std::filesystem;

// Certificates name machines and operators; this fits the 64 characters of a common name.
constexpr size_t kNameBytesMax = 48;

constexpr char kAuthorityDir[] = "authority";
constexpr char kSiteFile[] = "site.toml";

// A directory under a hidden name beside its final one: renamed by commit(), otherwise removed.
class StagedDirectory {
  public:
    static Result<StagedDirectory> make(const fs::path& final_path) {
        std::string name =
            (final_path.parent_path() / ("." + final_path.filename().native() + ".XXXXXX"))
                .native();
        if (!::mkdtemp(name.data()))
            return fail_errno(errno, fmt::format("cannot make a directory in {}",
                                                 final_path.parent_path().native()));
        return StagedDirectory(name, final_path);
    }
    StagedDirectory(StagedDirectory&& other) noexcept
        : path_(std::exchange(other.path_, {})), final_path_(std::move(other.final_path_)) {}
    StagedDirectory& operator=(StagedDirectory&&) = delete;
    ~StagedDirectory() {
        std::error_code ignored;
        if (!path_.empty()) fs::remove_all(path_, ignored);
    }

    const fs::path& path() const { return path_; }

    // rename(2) replaces an empty directory and nothing else, in one step.
    Result<void> commit() {
        if (::rename(path_.c_str(), final_path_.c_str()) != 0) {
            const int err = errno;
            if (err == EEXIST || err == ENOTEMPTY || err == ENOTDIR)
                return tl::unexpected<Error>(
                    Error{ErrorKind::operator_needed,
                          fmt::format("{} exists and is not overwritten; choose another directory",
                                      final_path_.native()),
                          EEXIST});
            return fail_errno(
                err, fmt::format("cannot rename {} to {}", path_.native(), final_path_.native()));
        }
        path_.clear();
        return sync_dir(final_path_.parent_path());
    }

  private:
    StagedDirectory(fs::path path, fs::path final_path)
        : path_(std::move(path)), final_path_(std::move(final_path)) {}
    fs::path path_;
    fs::path final_path_;
};

Result<void> check_name(const char* what, std::string_view name) {
    bool good = !name.empty() && name.size() <= kNameBytesMax && name[0] != '.' && name[0] != '-';
    for (const char c : name)
        good = good && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-');
    if (good) return {};
    return fail(ErrorKind::operator_needed,
                "'{}' cannot be the name of {}: up to {} letters, digits, '.', '_' and '-' are "
                "allowed, beginning with a letter, digit or '_'",
                name.substr(0, 64), what, kNameBytesMax);
}

Result<void> make_directory(const fs::path& path) {
    if (::mkdir(path.c_str(), 0700) == 0) return {};
    return fail_errno(errno, fmt::format("cannot make {}", path.native()));
}

Result<void> write_text(const fs::path& path, const std::string& text, mode_t mode) {
    return replace_file(path, as_bytes(text), mode);
}

Result<void> copy_authority_certificate(const wire::AuthorityFiles& authority,
                                        const fs::path& dir) {
    auto bytes = read_file(authority.certificate, 64u << 10);
    if (!bytes) return pass(bytes);
    return replace_file(dir / "ca.pem", *bytes, 0644);
}

// Certificate, key, authority certificate and configuration of one member in `dir`, which exists.
Result<EnrolledFolder> fill_folder(const wire::AuthorityFiles& authority, const fs::path& dir,
                                   const Site& site, wire::Role role, const std::string& name) {
    EnrolledFolder folder;
    folder.name = name;
    wire::Identity identity;
    identity.role = role;
    identity.name = name;
    std::vector<std::string> hosts;
    std::string config_name;
    std::string config;
    switch (role) {
        case wire::Role::server:
            folder.what = "server";
            hosts = site.server_hosts;
            config_name = "process-server.toml";
            config = process_server_toml(site);
            break;
        case wire::Role::machine:
            folder.what = "machine";
            folder.machine = identity.machine = Uuid::random();
            identity.name = to_string(identity.machine);
            config_name = "replicator.toml";
            config = replicator_toml(site, folder.machine, name);
            break;
        case wire::Role::operator_:
            folder.what = "operator";
            config_name = "herald.toml";
            config = herald_toml(site);
            break;
    }
    const std::string certificate = folder.what + ".pem";
    const std::string key = folder.what + ".key";
    if (auto r = wire::issue_certificate(authority, identity, hosts, site.valid_days,
                                         dir / certificate, dir / key);
        !r)
        return pass(r);
    if (auto r = copy_authority_certificate(authority, dir); !r) return pass(r);
    if (auto r = write_text(dir / config_name, config, 0644); !r) return pass(r);
    folder.files = {config_name, certificate, key, "ca.pem"};
    return folder;
}

Result<fs::path> final_path_of(const fs::path& dir) {
    std::error_code err;
    fs::path path = fs::absolute(dir, err).lexically_normal();
    if (err) return fail_errno(err.value(), fmt::format("cannot resolve {}", dir.native()));
    if (!path.has_filename()) path = path.parent_path();
    if (!path.has_filename() || path == path.root_path())
        return fail(ErrorKind::operator_needed, "{} cannot be made anew; name a directory in it",
                    dir.native());
    return path;
}

// Asked before the work for a clear answer; commit() decides, without a race.
Result<void> check_absent(const fs::path& path) {
    std::error_code err;
    if (!fs::exists(fs::symlink_status(path, err)) ||
        (fs::is_directory(path, err) && fs::is_empty(path, err)))
        return {};
    return tl::unexpected<Error>(Error{
        ErrorKind::operator_needed,
        fmt::format("{} exists and is not overwritten; choose another directory", path.native()),
        EEXIST});
}

}  // namespace

Result<std::vector<EnrolledFolder>> init_site(const InitRequest& request) {
    if (auto r = check_name("a machine", request.machine_name); !r) return pass(r);
    if (auto r = check_name("an operator", request.operator_name); !r) return pass(r);
    HERALD_ASSERT(!request.site.server_hosts.empty());
    auto final_path = final_path_of(request.dir);
    if (!final_path) return pass(final_path);
    if (auto r = check_absent(*final_path); !r) return pass(r);
    std::error_code err;
    fs::create_directories(final_path->parent_path(), err);
    if (err)
        return fail_errno(err.value(),
                          fmt::format("cannot make {}", final_path->parent_path().native()));
    auto staged = StagedDirectory::make(*final_path);
    if (!staged) return pass(staged);

    std::vector<EnrolledFolder> folders;
    const fs::path authority_dir = staged->path() / kAuthorityDir;
    if (auto r = make_directory(authority_dir); !r) return pass(r);
    const wire::AuthorityFiles authority{authority_dir / "ca.pem", authority_dir / "ca.key"};
    if (auto r = wire::create_authority(authority, "Herald authority", request.site.valid_days); !r)
        return pass(r);
    if (auto r = write_text(authority_dir / kSiteFile, site_toml(request.site), 0644); !r)
        return pass(r);
    EnrolledFolder authority_folder;
    authority_folder.what = authority_folder.name = kAuthorityDir;
    authority_folder.files = {"ca.pem", "ca.key", kSiteFile};
    folders.push_back(authority_folder);

    const std::pair<wire::Role, std::string> members[] = {
        {wire::Role::server, "process-server"},
        {wire::Role::machine, request.machine_name},
        {wire::Role::operator_, request.operator_name}};
    for (const auto& [role, name] : members) {
        if (auto r = check_interrupt(); !r) return pass(r);
        const char* dir = role == wire::Role::server    ? "server"
                          : role == wire::Role::machine ? "machine"
                                                        : "operator";
        if (auto r = make_directory(staged->path() / dir); !r) return pass(r);
        auto folder = fill_folder(authority, staged->path() / dir, request.site, role, name);
        if (!folder) return pass(folder);
        folders.push_back(std::move(*folder));
    }
    for (auto& folder : folders) folder.path = *final_path / folder.what;
    if (auto r = check_interrupt(); !r) return pass(r);
    if (auto r = staged->commit(); !r) return pass(r);
    return folders;
}

Result<EnrolledFolder> enrol(const fs::path& dir, EnrolKind kind, const std::string& name) {
    const bool machine = kind == EnrolKind::machine;
    if (auto r = check_name(machine ? "a machine" : "an operator", name); !r) return pass(r);
    auto site_dir = final_path_of(dir);
    if (!site_dir) return pass(site_dir);
    const fs::path authority_dir = *site_dir / kAuthorityDir;
    auto site = parse_site_toml(authority_dir / kSiteFile);
    if (!site)
        return pass(site, fmt::format("{} is not what 'herald init' makes", site_dir->native()));
    const fs::path final_path = *site_dir / ((machine ? "machine-" : "operator-") + name);
    if (auto r = check_absent(final_path); !r) return pass(r);
    auto staged = StagedDirectory::make(final_path);
    if (!staged) return pass(staged);
    auto folder = fill_folder({authority_dir / "ca.pem", authority_dir / "ca.key"}, staged->path(),
                              *site, machine ? wire::Role::machine : wire::Role::operator_, name);
    if (!folder) return pass(folder);
    folder->path = final_path;
    if (auto r = check_interrupt(); !r) return pass(r);
    if (auto r = staged->commit(); !r) return pass(r);
    return folder;
}

}  // namespace herald::cli
