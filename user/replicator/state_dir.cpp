// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/state_dir.h"

#include <sys/file.h>

#include <algorithm>
#include <cerrno>

namespace herald::replicator {

namespace {

constexpr size_t kStateBytesMax = 1u << 20;

Result<nlohmann::json> read_json(const std::filesystem::path& file) {
    auto bytes = read_file(file, kStateBytesMax);
    if (!bytes) return pass(bytes);
    auto json = nlohmann::json::parse(as_text(*bytes), nullptr, false);
    if (!json.is_object()) {
        return fail(ErrorKind::operator_needed, "{} is not a JSON object: remove it",
                    file.native());
    }
    return json;
}

std::string text_of(const nlohmann::json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

uint64_t number_of(const nlohmann::json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

double real_of(const nlohmann::json& json, const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_number() ? found->get<double>() : 0;
}

}  // namespace

Result<std::unique_ptr<StateDir>> StateDir::open(const std::filesystem::path& dir) {
    std::error_code error;
    std::filesystem::create_directories(dir, error);
    if (error) return fail_errno(error.value(), fmt::format("create {}", dir.native()));
    std::unique_ptr<StateDir> state(new StateDir(dir));
    auto lock = open_file(dir / "lock", O_RDWR | O_CREAT);
    if (!lock) return pass(lock);
    if (::flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return fail_errno(errno, fmt::format("lock {}", dir.native()));
        return fail(ErrorKind::operator_needed,
                    "{} is in use: another herald-replicator runs; stop it first", dir.native());
    }
    state->lock_file_ = std::move(*lock);
    const auto file = dir / "disks.json";
    if (std::filesystem::exists(file, error)) {
        auto json = read_json(file);
        if (!json) return pass(json);
        for (const auto& item : json->value("disks", nlohmann::json::array())) {
            ChosenDisk disk{text_of(item, "identity"), text_of(item, "path"),
                            item.value("protect", true)};
            if (!disk.identity.empty() && state->chosen_.size() < 4 * HERALD_DISKS_MAX) {
                state->chosen_.push_back(std::move(disk));
            }
        }
    }
    return state;
}

std::vector<ChosenDisk> StateDir::chosen() const {
    const std::lock_guard lock(lock_);
    return chosen_;
}

Result<void> StateDir::choose(const ChosenDisk& disk) {
    const std::lock_guard freeze(freeze_lock_);
    const std::lock_guard lock(lock_);
    std::vector<ChosenDisk> after = chosen_;
    std::erase_if(after, [&](const ChosenDisk& d) { return d.identity == disk.identity; });
    after.push_back(disk);
    nlohmann::json json{{"disks", nlohmann::json::array()}};
    for (const ChosenDisk& d : after) {
        json["disks"].push_back(
            {{"identity", d.identity}, {"path", d.path}, {"protect", d.protect}});
    }
    auto written = replace_file(dir_ / "disks.json", as_bytes(json.dump(2) + "\n"));
    if (written) chosen_ = std::move(after);
    return written;
}

std::filesystem::path StateDir::point_file(const Uuid& disk) const {
    return dir_ / fmt::format("point-{}.json", to_string(disk));
}

std::optional<PointReport> StateDir::last_point(const Uuid& disk) const {
    std::error_code error;
    if (!std::filesystem::exists(point_file(disk), error)) return std::nullopt;
    auto json = read_json(point_file(disk));
    if (!json) return std::nullopt;
    auto id = Uuid::parse(text_of(*json, "id"));
    if (!id) return std::nullopt;
    PointReport report;
    report.id = *id;
    report.name = text_of(*json, "name");
    report.time_ns = number_of(*json, "time_ns");
    report.position = number_of(*json, "position");
    report.frozen_ms = real_of(*json, "frozen_ms");
    report.hold_ms = real_of(*json, "hold_ms");
    if (text_of(*json, "consistency") == hrl::to_string(hrl::Consistency::crash)) {
        report.consistency = hrl::Consistency::crash;
    }
    for (const auto& item : json->value("not_frozen", nlohmann::json::array())) {
        if (item.is_string()) report.not_frozen.push_back(item.get<std::string>());
    }
    return report;
}

Result<void> StateDir::save_last_point(const Uuid& disk, const PointReport& point) {
    const std::lock_guard freeze(freeze_lock_);
    return replace_file(point_file(disk), as_bytes(to_json(point).dump() + "\n"));
}

std::filesystem::path StateDir::order_file(const Uuid& disk) const {
    return dir_ / fmt::format("order-{}.json", to_string(disk));
}

std::optional<ResyncHow> StateDir::order(const Uuid& disk) const {
    std::error_code error;
    if (!std::filesystem::exists(order_file(disk), error)) return std::nullopt;
    auto json = read_json(order_file(disk));
    // Damaged: something was ordered, and a compare finds all that any resync would mend.
    return json && text_of(*json, "resync") == "full" ? ResyncHow::full : ResyncHow::digest;
}

Result<void> StateDir::save_order(const Uuid& disk, ResyncHow how) {
    const std::lock_guard freeze(freeze_lock_);
    if (order(disk) == ResyncHow::full) return {};
    const nlohmann::json json{{"resync", how == ResyncHow::full ? "full" : "digest"}};
    return replace_file(order_file(disk), as_bytes(json.dump() + "\n"));
}

void StateDir::drop_order(const Uuid& disk, ResyncHow how) {
    const std::lock_guard freeze(freeze_lock_);
    std::error_code ignored;
    if (order(disk) == how) std::filesystem::remove(order_file(disk), ignored);
}

void StateDir::forget(const Uuid& disk) {
    const std::lock_guard freeze(freeze_lock_);
    std::error_code ignored;
    std::filesystem::remove(point_file(disk), ignored);
    std::filesystem::remove(order_file(disk), ignored);
}

}  // namespace herald::replicator
