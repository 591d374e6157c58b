// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/config.h"

#include <toml++/toml.h>

#include <cstdlib>
#include <vector>

#include "user/base/file.h"

namespace herald::cli {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kConfigBytesMax = 64u << 10;

std::vector<fs::path> default_places() {
    std::vector<fs::path> places;
    const char* config_home = std::getenv("XDG_CONFIG_HOME");
    const char* home = std::getenv("HOME");
    if (config_home && *config_home)
        places.push_back(fs::path(config_home) / "herald/herald.toml");
    else if (home && *home)
        places.push_back(fs::path(home) / ".config/herald/herald.toml");
    places.push_back("/etc/herald/herald.toml");
    return places;
}

Result<fs::path> find_config(const std::optional<fs::path>& file) {
    if (file) return *file;
    std::string looked;
    std::error_code ignored;
    for (const fs::path& place : default_places()) {
        if (fs::exists(place, ignored)) return place;
        looked += (looked.empty() ? "" : " and ") + place.native();
    }
    return fail(ErrorKind::operator_needed,
                "no configuration at {}; give one with --config FILE, or make one with "
                "'herald init'",
                looked);
}

Result<std::string> text_of(const toml::table& table, const fs::path& file, const char* section,
                            const char* key) {
    const auto value = table[section][key].value<std::string>();
    if (value && !value->empty()) return *value;
    return fail(ErrorKind::operator_needed, "{}: '{}' in [{}] must be a text that is not empty",
                file.native(), key, section);
}

}  // namespace

Result<OperatorConfig> load_operator_config(const std::optional<fs::path>& given) {
    const auto file = find_config(given);
    if (!file) return pass(file);
    const auto bytes = read_file(*file, kConfigBytesMax);
    if (!bytes) {
        Error error = bytes.error();
        error.message = "configuration: " + error.message;
        error.sys = 0;  // a missing configuration is not a missing disk or point
        return tl::unexpected<Error>(std::move(error));
    }
    try {
        const toml::table table = toml::parse(as_text(*bytes), file->native());
        OperatorConfig config;
        auto host = text_of(table, *file, "server", "host");
        if (!host) return pass(host);
        config.server.host = *host;
        const int64_t port = table["server"]["port"].value_or<int64_t>(config.server.port);
        if (port < 1 || port > 65535)
            return fail(ErrorKind::operator_needed,
                        "{}: 'port' in [server] is {}, not between 1 and 65535", file->native(),
                        port);
        config.server.port = uint16_t(port);
        const std::pair<const char*, fs::path*> paths[] = {{"authority", &config.tls.authority},
                                                           {"certificate", &config.tls.certificate},
                                                           {"key", &config.tls.key}};
        for (const auto& [key, path] : paths) {
            auto text = text_of(table, *file, "tls", key);
            if (!text) return pass(text);
            *path = fs::absolute(*file).parent_path() / *text;
        }
        return config;
    } catch (const toml::parse_error& error) {
        return fail(ErrorKind::operator_needed, "{} line {}: {}", file->native(),
                    error.source().begin.line, error.description());
    } catch (const fs::filesystem_error& error) {
        return fail(ErrorKind::operator_needed, "{}: {}", file->native(), error.what());
    }
}

}  // namespace herald::cli
