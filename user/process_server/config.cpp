// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/config.h"

#include <toml++/toml.h>

#include <set>

namespace herald::process_server {

namespace {

namespace fs = std::filesystem;

// A configuration is a page of text.
constexpr uint64_t kConfigBytesMax = 1u << 20;

// Reads keys by name and remembers which ones there may be; the first error is kept.
class Keys {
  public:
    Keys(const toml::table& root, fs::path folder, std::string name)
        : root_(root), folder_(std::move(folder)), name_(std::move(name)) {}

    void text(const char* section, const char* key, std::string& value) {
        const toml::node* node = find(section, key);
        if (!node) return;
        if (const auto found = node->value_exact<std::string>()) {
            value = *found;
        } else {
            wrong(section, key, "a string was expected");
        }
    }

    void path(const char* section, const char* key, fs::path& value, bool required) {
        std::string found;
        text(section, key, found);
        if (!found.empty()) {
            value = (folder_ / found).lexically_normal();
        } else if (required && error_.empty()) {
            error_ = fmt::format("{}: {}.{} is missing: a path is needed", name_, section, key);
        }
    }

    template <class T>
    void number(const char* section, const char* key, T& value, uint64_t least, uint64_t most) {
        const toml::node* node = find(section, key);
        if (!node) return;
        const auto found = node->value_exact<int64_t>();
        if (!found || *found < 0 || uint64_t(*found) < least || uint64_t(*found) > most) {
            wrong(section, key, fmt::format("a number from {} to {} was expected", least, most));
            return;
        }
        value = T(*found);
    }

    // After all keys were asked for: whatever else the file holds is a mistake.
    Result<void> finish() {
        for (const auto& [section, node] : root_) {
            const std::string section_name(section.str());
            const toml::table* table = node.as_table();
            if (!table || !sections_.contains(section_name)) {
                note(fmt::format("{}: {} is not known", name_, section_name));
                continue;
            }
            for (const auto& [key, value] : *table) {
                const std::string full = fmt::format("{}.{}", section_name, key.str());
                if (!known_.contains(full)) note(fmt::format("{}: {} is not known", name_, full));
            }
        }
        if (!error_.empty()) return fail(ErrorKind::operator_needed, "{}", error_);
        return {};
    }

  private:
    const toml::node* find(const char* section, const char* key) {
        sections_.insert(section);
        known_.insert(fmt::format("{}.{}", section, key));
        const toml::table* table = root_[section].as_table();
        return table ? table->get(key) : nullptr;
    }
    void wrong(const char* section, const char* key, std::string_view why) {
        note(fmt::format("{}: {}.{}: {}", name_, section, key, why));
    }
    void note(std::string error) {
        if (error_.empty()) error_ = std::move(error);
    }

    const toml::table& root_;
    const fs::path folder_;
    const std::string name_;
    std::set<std::string> sections_;
    std::set<std::string> known_;
    std::string error_;
};

}  // namespace

Result<Config> parse_config(std::string_view text, const fs::path& folder,
                            const std::string& name) {
    toml::table table;
    try {
        table = toml::parse(text);
    } catch (const toml::parse_error& error) {
        return fail(ErrorKind::operator_needed, "{}:{}: {}", name, error.source().begin.line,
                    error.description());
    }
    Config config;
    Keys keys(table, folder, name);
    keys.text("server", "address", config.server.address);
    keys.number("server", "port", config.server.port, 0, 65535);
    keys.number("server", "workers", config.server.workers, 1, 64);
    keys.path("tls", "authority", config.tls.authority, true);
    keys.path("tls", "certificate", config.tls.certificate, true);
    keys.path("tls", "key", config.tls.key, true);
    keys.path("store", "path", config.store, true);
    config.catalog = (config.store / ".." / "catalog.sqlite").lexically_normal();
    keys.path("catalog", "path", config.catalog, false);
    SpaceLimits& space = config.service.space;
    keys.number("limits", "free_bytes_min", space.free_bytes_min, 1u << 20, INT64_MAX);
    keys.number("limits", "free_bytes_plenty", space.free_bytes_plenty, 0, INT64_MAX);
    keys.number("limits", "free_percent_warning", space.warning_percent, 0, 100);
    keys.number("limits", "free_percent_alert", space.alert_percent, 0, 100);
    keys.number("limits", "free_percent_slow", space.slow_percent, 0, 100);
    keys.number("limits", "retry_after_seconds", config.service.retry_after_s, 1, 3600);
    // Shorter than an idle replicator's own interval, every idle disk would be silent.
    keys.number("limits", "silent_after_seconds", config.service.silent_after_s,
                wire::kLookEverySeconds + 1, 86400);
    keys.number("limits", "connections_max", config.server.connections_max, 1, 65536);
    keys.number("limits", "connections_per_address_max", config.server.connections_per_address_max,
                1, 65536);
    // At least one whole segment, or nothing could ever be received.
    keys.number("limits", "bodies_bytes_max", config.server.bodies_bytes_max,
                HERALD_SEGMENT_BYTES_MAX, 4ull << 30);
    auto finished = keys.finish();
    if (!finished) return pass(finished);
    return config;
}

Result<Config> load_config(const fs::path& path) {
    auto bytes = read_file(path, kConfigBytesMax);
    if (!bytes) return pass(bytes, "configuration ('herald init' makes one)");
    std::error_code ignored;
    return parse_config(as_text(*bytes), fs::absolute(path, ignored).parent_path(), path.native());
}

}  // namespace herald::process_server
