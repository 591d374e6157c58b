// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/state_dir.h"

#include <spdlog/spdlog.h>
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
    state->writer_ = std::thread([raw = state.get()] { raw->write_later(); });
    return state;
}

StateDir::~StateDir() {
    {
        const std::lock_guard lock(lock_);
        stop_ = true;
        changed_.notify_all();
    }
    if (writer_.joinable()) writer_.join();
}

void StateDir::write_later() {
    for (;;) {
        {
            std::unique_lock lock(lock_);
            changed_.wait(lock, [&] { return stop_ || !later_.empty(); });
            if (later_.empty()) return;
        }
        const std::lock_guard freeze(freeze_lock_);
        std::map<Uuid, Later>::node_type next;
        {
            const std::lock_guard lock(lock_);
            if (later_.empty()) continue;  // overtaken by an order, or forgotten
            next = later_.extract(later_.begin());
            writing_later_ = true;
        }
        write(next.key(), next.mapped());
        const std::lock_guard lock(lock_);
        writing_later_ = false;
        changed_.notify_all();
    }
}

void StateDir::write(const Uuid& disk, const Later& later) {
    if (later.point) {
        auto saved = replace_file(point_file(disk), as_bytes(to_json(*later.point).dump() + "\n"));
        if (!saved) spdlog::warn("{}", saved.error().message);
    }
    std::error_code ignored;
    if (later.dropped && order(disk) == later.dropped) {
        std::filesystem::remove(order_file(disk), ignored);
    }
}

bool StateDir::written_by(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(lock_);
    return changed_.wait_until(lock, until, [&] { return later_.empty() && !writing_later_; });
}

std::vector<ChosenDisk> StateDir::chosen() const {
    const std::lock_guard lock(lock_);
    return chosen_;
}

Result<void> StateDir::choose(const ChosenDisk& disk) {
    const std::lock_guard freeze(freeze_lock_);
    std::vector<ChosenDisk> after = chosen();
    std::erase_if(after, [&](const ChosenDisk& d) { return d.identity == disk.identity; });
    after.push_back(disk);
    return replace_chosen(std::move(after));
}

Result<void> StateDir::found_at(const std::string& identity, const std::string& path) {
    const std::lock_guard freeze(freeze_lock_);
    std::vector<ChosenDisk> after = chosen();
    for (ChosenDisk& disk : after) {
        if (disk.protect && disk.identity == identity) disk.path = path;
    }
    return replace_chosen(std::move(after));
}

// Under freeze_lock_: one at a time.
Result<void> StateDir::replace_chosen(std::vector<ChosenDisk> after) {
    nlohmann::json json{{"disks", nlohmann::json::array()}};
    for (const ChosenDisk& d : after) {
        json["disks"].push_back(
            {{"identity", d.identity}, {"path", d.path}, {"protect", d.protect}});
    }
    auto written = replace_file(dir_ / "disks.json", as_bytes(json.dump(2) + "\n"));
    const std::lock_guard lock(lock_);
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

void StateDir::save_last_point(const Uuid& disk, const PointReport& point) {
    const std::lock_guard lock(lock_);
    later_[disk].point = point;
    changed_.notify_all();
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
    // What is to be dropped is an older one: this one stands.
    Later older;
    {
        const std::lock_guard lock(lock_);
        const auto found = later_.find(disk);
        if (found != later_.end()) older.dropped = std::exchange(found->second.dropped, {});
    }
    write(disk, older);
    if (order(disk) == ResyncHow::full) return {};
    const nlohmann::json json{{"resync", how == ResyncHow::full ? "full" : "digest"}};
    return replace_file(order_file(disk), as_bytes(json.dump() + "\n"));
}

void StateDir::drop_order(const Uuid& disk, ResyncHow how) {
    const std::lock_guard lock(lock_);
    later_[disk].dropped = how;
    changed_.notify_all();
}

void StateDir::forget(const Uuid& disk) {
    const std::lock_guard freeze(freeze_lock_);
    {
        const std::lock_guard lock(lock_);
        later_.erase(disk);
        changed_.notify_all();
    }
    std::error_code ignored;
    std::filesystem::remove(point_file(disk), ignored);
    std::filesystem::remove(order_file(disk), ignored);
}

}  // namespace herald::replicator
