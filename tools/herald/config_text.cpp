// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/config_text.h"

#include <toml++/toml.h>

#include "user/base/file.h"

namespace herald::cli {

namespace {

constexpr uint64_t kSiteFileBytesMax = 64u << 10;

std::string server_section(const Site& site) {
    return fmt::format("[server]\nhost = {}\nport = {}\n", toml_quoted(site.server_hosts.front()),
                       site.port);
}

std::string tls_section(const char* name) {
    return fmt::format(
        "# Relative to this file.\n"
        "[tls]\n"
        "authority = \"ca.pem\"\n"
        "certificate = \"{0}.pem\"\n"
        "key = \"{0}.key\"\n",
        name);
}

std::string quoted_path(const std::filesystem::path& path) { return toml_quoted(path.native()); }

}  // namespace

std::string toml_quoted(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            result += fmt::format("\\u{:04x}", unsigned(static_cast<unsigned char>(c)));
        } else {
            result += c;
        }
    }
    return result + '"';
}

std::string process_server_toml(const Site& site) {
    const auto store = site.store_dir.empty() ? site.state_dir / "store" : site.store_dir;
    return fmt::format(
        "# herald-process-server: receives change streams and keeps them.\n"
        "# Check with: herald-process-server --config THIS_FILE --check-config\n"
        "\n"
        "[server]\n"
        "address = \"0.0.0.0\"  # where to listen; every client must show a certificate\n"
        "port = {}\n"
        "\n{}\n"
        "[store]\n"
        "path = {}  # the segments; needs room for the disks and their changes\n"
        "\n"
        "[catalog]\n"
        "path = {}\n",
        site.port, tls_section("server"), quoted_path(store),
        quoted_path(site.state_dir / "catalog.sqlite"));
}

std::string replicator_toml(const Site& site, const Uuid& machine, const std::string& name) {
    return fmt::format(
        "# herald-replicator: protects this machine's disks.\n"
        "# Check with: herald-replicator --config THIS_FILE --check-config\n"
        "\n{}\n{}\n"
        "[machine]\n"
        "id = \"{}\"  # the certificate names it too; do not change it\n"
        "name = {}\n"
        "\n"
        "[replicator]\n"
        "control_socket = {}\n"
        "guardian_socket = {}\n"
        "state_dir = {}\n"
        "bpf_dir = {}\n"
        "\n"
        "[points]\n"
        "every_s = {}  # a recovery point of every disk this often; 0: only when asked for\n"
        "\n"
        "# Disks are added with 'cbtctl protect DISK', or here, one section for each:\n"
        "# [[disk]]\n"
        "# path = \"/dev/sda\"\n",
        server_section(site), tls_section("machine"), to_string(machine), toml_quoted(name),
        quoted_path(site.run_dir / "replicator.sock"), quoted_path(site.run_dir / "guardian.sock"),
        quoted_path(site.state_dir / "replicator"), quoted_path(site.run_dir / "bpf"),
        site.points_every_s);
}

std::string herald_toml(const Site& site) {
    return fmt::format("# herald: the operator's command.\n\n{}\n{}", server_section(site),
                       tls_section("operator"));
}

std::string site_toml(const Site& site) {
    std::string hosts;
    for (const auto& host : site.server_hosts)
        hosts += (hosts.empty() ? "" : ", ") + toml_quoted(host);
    return fmt::format(
        "# What 'herald enroll' gives to machines and operators that are added later.\n"
        "server_hosts = [{}]\n"
        "port = {}\n"
        "run_dir = {}\n"
        "state_dir = {}\n"
        "points_every_s = {}\n"
        "valid_days = {}\n",
        hosts, site.port, quoted_path(site.run_dir), quoted_path(site.state_dir),
        site.points_every_s, site.valid_days);
}

Result<Site> parse_site_toml(const std::filesystem::path& file) {
    auto bytes = read_file(file, kSiteFileBytesMax);
    if (!bytes) return pass(bytes);
    try {
        const toml::table table = toml::parse(as_text(*bytes), file.native());
        Site site;
        site.server_hosts.clear();
        if (const auto* hosts = table["server_hosts"].as_array())
            for (const auto& host : *hosts)
                if (const auto text = host.value<std::string>()) site.server_hosts.push_back(*text);
        if (site.server_hosts.empty())
            return fail(ErrorKind::operator_needed, "{}: server_hosts names no server",
                        file.native());
        const int64_t port = table["port"].value_or<int64_t>(site.port);
        if (port < 1 || port > 65535)
            return fail(ErrorKind::operator_needed, "{}: port {} is not between 1 and 65535",
                        file.native(), port);
        site.port = uint16_t(port);
        site.run_dir = table["run_dir"].value_or(site.run_dir.native());
        site.state_dir = table["state_dir"].value_or(site.state_dir.native());
        site.points_every_s = table["points_every_s"].value_or(site.points_every_s);
        site.valid_days = table["valid_days"].value_or(site.valid_days);
        return site;
    } catch (const toml::parse_error& error) {
        return fail(ErrorKind::operator_needed, "{} line {}: {}", file.native(),
                    error.source().begin.line, error.description());
    }
}

}  // namespace herald::cli
