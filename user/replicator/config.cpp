// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/config.h"

#include <unistd.h>

#include <functional>
#include <map>
// toml++ parses without exceptions when told so: an error is a value.
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include "user/base/file.h"

namespace herald::replicator {

namespace {

constexpr size_t kConfigBytesMax = 1u << 20;

// One file's keys: each is read by a setter; what has no setter is an error.
class Reader {
  public:
    Reader(std::string name, std::filesystem::path dir)
        : name_(std::move(name)), dir_(std::move(dir)) {}

    using Setter = std::function<Result<void>(const toml::node&, const std::string& key)>;

    Setter text(std::string& to) {
        return [this, &to](const toml::node& node, const std::string& key) -> Result<void> {
            auto value = node.value_exact<std::string>();
            if (!value || value->empty()) return refuse(key, "a text is expected");
            to = *value;
            return {};
        };
    }
    Setter path(std::filesystem::path& to) {
        return [this, &to](const toml::node& node, const std::string& key) -> Result<void> {
            std::string value;
            auto done = text(value)(node, key);
            if (!done) return done;
            to = (dir_ / value).lexically_normal();
            return {};
        };
    }
    template <class T>
    Setter number(T& to, uint64_t min, uint64_t max) {
        return
            [this, &to, min, max](const toml::node& node, const std::string& key) -> Result<void> {
                auto value = node.value_exact<int64_t>();
                if (!value || *value < 0 || uint64_t(*value) < min || uint64_t(*value) > max) {
                    return refuse(
                        key, fmt::format("a whole number from {} to {} is expected", min, max));
                }
                to = T(*value);
                return {};
            };
    }
    Result<void> table(const toml::table& table, const std::string& at,
                       const std::map<std::string, Setter>& setters) {
        for (const auto& [key, node] : table) {
            const std::string full =
                at.empty() ? std::string(key.str()) : fmt::format("{}.{}", at, key.str());
            const auto found = setters.find(std::string(key.str()));
            if (found == setters.end()) return refuse(full, "this key is not known");
            auto done = found->second(node, full);
            if (!done) return done;
        }
        return {};
    }
    Setter section(std::map<std::string, Setter> setters) {
        return [this, setters = std::move(setters)](const toml::node& node,
                                                    const std::string& key) -> Result<void> {
            const toml::table* inner = node.as_table();
            if (!inner) return refuse(key, "a section is expected");
            return table(*inner, key, setters);
        };
    }
    tl::unexpected<Error> refuse(const std::string& key, const std::string& why) const {
        return fail(ErrorKind::operator_needed, "{}: {}: {}", name_, key, why);
    }

  private:
    std::string name_;
    std::filesystem::path dir_;
};

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& name,
                            const std::filesystem::path& dir) {
    const toml::parse_result parsed = toml::parse(text, name);
    if (!parsed) {
        return fail(ErrorKind::operator_needed, "{}: line {}: {}", name,
                    parsed.error().source().begin.line, parsed.error().description());
    }
    Config config;
    Reader reader(name, dir);
    std::string machine;
    std::string engine;
    const auto disks = [&](const toml::node& node, const std::string& key) -> Result<void> {
        const toml::array* list = node.as_array();
        if (!list) return reader.refuse(key, "[[disk]] sections are expected");
        if (list->size() > HERALD_DISKS_MAX) {
            return reader.refuse(key, fmt::format("at most {} disks", HERALD_DISKS_MAX));
        }
        for (const toml::node& item : *list) {
            std::filesystem::path path;
            auto done = reader.section({{"path", reader.path(path)}})(item, key);
            if (!done) return done;
            if (path.empty()) return reader.refuse(key + ".path", "missing");
            config.disks.push_back(path);
        }
        return {};
    };
    auto done = reader.table(
        parsed.table(), "",
        {{"server", reader.section({{"host", reader.text(config.server.host)},
                                    {"port", reader.number(config.server.port, 1, 65535)}})},
         {"tls", reader.section({{"authority", reader.path(config.tls.authority)},
                                 {"certificate", reader.path(config.tls.certificate)},
                                 {"key", reader.path(config.tls.key)}})},
         {"machine", reader.section({{"id", reader.text(machine)},
                                     {"name", reader.text(config.machine_name)}})},
         {"replicator",
          reader.section(
              {{"control_socket", reader.path(config.control_socket)},
               {"guardian_socket", reader.path(config.guardian_socket)},
               {"state_dir", reader.path(config.state_dir)},
               {"bpf_dir", reader.path(config.bpf_dir)},
               {"io_engine", reader.text(engine)},
               {"segment_bytes", reader.number(config.segment_bytes, HERALD_BLOCK_BYTES,
                                               HERALD_SEGMENT_BYTES_DEFAULT)},
               {"segment_age_ms", reader.number(config.segment_age_ms, 10, 60'000)},
               {"pass_interval_ms", reader.number(config.pass_interval_ms, 10, 60'000)},
               {"rate_limit_bytes_s", reader.number(config.rate_limit_bytes_s, 0, 1ull << 40)}})},
         {"points",
          reader.section({{"every_s", reader.number(config.points_every_s, 0, 365 * 86400)}})},
         {"disk", disks}});
    if (!done) return pass(done);

    if (config.server.host.empty()) return reader.refuse("server.host", "missing");
    if (config.tls.authority.empty()) return reader.refuse("tls.authority", "missing");
    if (config.tls.certificate.empty()) return reader.refuse("tls.certificate", "missing");
    if (config.tls.key.empty()) return reader.refuse("tls.key", "missing");
    if (machine.empty()) return reader.refuse("machine.id", "missing");
    auto id = Uuid::parse(machine);
    if (!id) return reader.refuse("machine.id", id.error().message);
    config.machine = *id;
    if (config.machine_name.empty()) {
        char host[256] = {};
        if (::gethostname(host, sizeof host - 1) == 0) config.machine_name = host;
    }
    if (!engine.empty()) {
        auto kind = parse_io_engine_kind(engine);
        if (!kind) return reader.refuse("replicator.io_engine", kind.error().message);
        config.io_engine = *kind;
    }
    return config;
}

Result<Config> load_config(const std::filesystem::path& file) {
    auto bytes = read_file(file, kConfigBytesMax);
    if (!bytes) return pass(bytes, "configuration ('herald init' makes one)");
    std::error_code error;
    const auto absolute = std::filesystem::absolute(file, error);
    return parse_config(as_text(*bytes), file.native(),
                        error ? file.parent_path() : absolute.parent_path());
}

}  // namespace herald::replicator
